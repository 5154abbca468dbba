//! Owns what no two copies of a machine may share: the time and the random numbers.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::time::{ClockId, Timespec, clock_settime};

use crate::fault::{Context, Fault};

/// `_IOW('R', 3, int[2])` and `_IO('R', 7)` of the kernel's `random.h`, which `libc` lacks.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

const MAX_ENTROPY: usize = 512;
const NANOSECONDS: i64 = 1_000_000_000;

/// Sets the wall clock, nanoseconds since 1970; zero leaves it.
pub(super) fn set_clock(now_ns: i64) -> Result<(), Fault> {
    if now_ns == 0 {
        return Ok(());
    }
    let now = Timespec { tv_sec: now_ns.div_euclid(NANOSECONDS), tv_nsec: now_ns.rem_euclid(NANOSECONDS) };
    clock_settime(ClockId::Realtime, now).context("set the clock")
}

/// What `RNDADDENTROPY` reads: `struct rand_pool_info` with a buffer of fixed size.
#[repr(C)]
struct PoolInfo {
    entropy_bits: i32,
    buffer_bytes: i32,
    buffer: [u8; MAX_ENTROPY],
}

/// Feeds the kernel's generator and makes it use the new seed at once. Nothing given, nothing done.
pub(super) fn seed(entropy: &[u8]) -> Result<(), Fault> {
    if entropy.is_empty() {
        return Ok(());
    }
    let mut info = PoolInfo { entropy_bits: 0, buffer_bytes: 0, buffer: [0; MAX_ENTROPY] };
    let Some(buffer) = info.buffer.get_mut(..entropy.len()) else {
        return Err(Fault::new(format!("more than {MAX_ENTROPY} bytes of entropy: {}", entropy.len())));
    };
    buffer.copy_from_slice(entropy);
    info.buffer_bytes = i32::try_from(entropy.len()).context("length of the entropy")?;
    info.entropy_bits = info.buffer_bytes * 8;
    let random = File::options().write(true).open("/dev/urandom").context("open /dev/urandom")?;
    // SAFETY: `info` is laid out as the request wants it, its length field is within its buffer, and it outlives the call.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) };
    if added != 0 {
        return Err(io::Error::last_os_error()).context("add entropy");
    }
    // SAFETY: this request takes no argument.
    let reseeded = unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) };
    if reseeded == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("reseed the random numbers") }
}
