//! Owns the network interfaces as `ioctl` sees them: flags and hardware addresses.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use cellule_protocol::network::Mac;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::fault::{Context, Fault};

/// What an interface is asked through.
fn socket() -> Result<OwnedFd, Fault> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).context("open a socket")
}

/// A request about the interface of this name.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: zeroes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn set(kind: libc::Ioctl, request: &libc::ifreq) -> io::Result<()> {
    let socket = socket().map_err(io::Error::other)?;
    // SAFETY: the callers below give a request that such a call only reads, with a terminated name, and it outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), kind, std::ptr::from_ref(request)) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Brings the interface up.
pub(crate) fn bring_up(name: &str) -> Result<(), Fault> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    set(libc::SIOCSIFFLAGS, &request).context(format_args!("bring {name} up"))
}

/// Gives the interface a hardware address; it may be up.
pub(crate) fn set_mac(name: &str, mac: Mac) -> Result<(), Fault> {
    let mut request = request(name);
    let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
    for (to, from) in address.sa_data.iter_mut().zip(mac) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_hwaddr = address;
    set(libc::SIOCSIFHWADDR, &request).context(format_args!("set the hardware address of {name}"))
}
