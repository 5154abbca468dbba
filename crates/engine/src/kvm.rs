//! Whether this host's KVM really runs a guest. Nothing uses KVM in this version; `doctor` tells what a later one
//! would find.
//!
//! That `/dev/kvm` opens says little: on a paravirtual KVM it does, and yet no ordinary kernel boots. So three
//! things are looked at: the processor's flags, the device, and a guest of one instruction.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kvm_bindings::{KVM_API_VERSION, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// How long the guest of one instruction may take.
const LIMIT: Duration = Duration::from_secs(2);
const PAGE: usize = 4096;
/// Where an x86 processor begins after a reset: 16 bytes below 4 GiB.
const RESET_VECTOR: u64 = 0xffff_fff0;
const HLT: u8 = 0xf4;

/// What this host offers for KVM.
#[derive(Debug)]
pub struct KvmProbe {
    /// The processor's flag for virtualisation, `vmx` or `svm`, if it has one.
    pub cpu_flag: Option<&'static str>,
    /// `/dev/kvm`.
    pub device: KvmDevice,
    /// Whether a guest of one instruction ran; the reason if not. `None` where the device can't be opened.
    pub runs_guest: Option<Result<(), String>>,
}

/// The state of `/dev/kvm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmDevice {
    /// It is not there: no module, or no support in the processor.
    Missing,
    /// It is there, but this user may not open it.
    Denied,
    /// It opens, but isn't the KVM that is known, or can't be opened for another reason.
    Unusable(String),
    /// It opens.
    Open,
}

impl KvmProbe {
    /// Looks at this host. Takes at most some two seconds, usually milliseconds.
    pub fn run() -> Self {
        let cpu_flag = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| flag_in(&text));
        let (device, runs_guest) = match Kvm::new() {
            Ok(kvm) if u32::try_from(kvm.get_api_version()) == Ok(KVM_API_VERSION) => {
                (KvmDevice::Open, Some(limited(kvm)))
            }
            Ok(kvm) => (KvmDevice::Unusable(format!("its API has version {}", kvm.get_api_version())), None),
            Err(e) => (device_for(&io::Error::from(e)), None),
        };
        Self { cpu_flag, device, runs_guest }
    }

    /// Whether an ordinary guest can be expected to run.
    pub fn usable(&self) -> bool {
        self.cpu_flag.is_some() && matches!(self.runs_guest, Some(Ok(())))
    }
}

fn device_for(error: &io::Error) -> KvmDevice {
    match error.kind() {
        io::ErrorKind::NotFound => KvmDevice::Missing,
        io::ErrorKind::PermissionDenied => KvmDevice::Denied,
        _ => KvmDevice::Unusable(error.to_string()),
    }
}

fn flag_in(cpuinfo: &str) -> Option<&'static str> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    ["vmx", "svm"].into_iter().find(|flag| flags.split_whitespace().any(|has| has == *flag))
}

/// Runs the guest on a thread, since nothing bounds the call from within. A thread that hangs is left behind; it
/// holds nothing but its one page, and the process's end interrupts it.
fn limited(kvm: Kvm) -> Result<(), String> {
    let (done, result) = mpsc::channel();
    thread::Builder::new()
        .name("kvm-probe".to_owned())
        .spawn(move || {
            // Nobody listens any more if it took too long.
            let _ = done.send(one_instruction(&kvm));
        })
        .map_err(|e| format!("no thread: {e}"))?;
    result.recv_timeout(LIMIT).unwrap_or_else(|_| Err(format!("its guest hung for {} s", LIMIT.as_secs())))
}

/// A guest whose reset vector holds `hlt`.
fn one_instruction(kvm: &Kvm) -> Result<(), String> {
    // The page is made first, so that it is dropped last.
    let page = Page::new().map_err(|e| format!("no memory: {e}"))?;
    let vm = kvm.create_vm().map_err(|e| format!("no VM: {e}"))?;
    let in_page = usize::try_from(RESET_VECTOR).unwrap_or(0) % PAGE;
    page.put(in_page, HLT);
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: RESET_VECTOR - in_page as u64,
        memory_size: PAGE as u64,
        userspace_addr: page.0 as u64,
    };
    // SAFETY: the region is one page that stays mapped until `page` is dropped, which is after `vm` and its vCPU.
    // Nothing in Rust refers into it.
    unsafe { vm.set_user_memory_region(region) }.map_err(|e| format!("no guest memory: {e}"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(|e| format!("no vCPU: {e}"))?;
    match vcpu.run() {
        Ok(VcpuExit::Hlt) => Ok(()),
        Ok(other) => Err(format!("its guest ended with {other:?}")),
        Err(e) => Err(format!("its guest does not run: {e}")),
    }
}

/// One page of memory, mapped for a guest.
struct Page(*mut std::ffi::c_void);

impl Page {
    fn new() -> io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other memory.
        let at = unsafe {
            mmap_anonymous(std::ptr::null_mut(), PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        Ok(Self(at))
    }

    fn put(&self, at: usize, byte: u8) {
        assert!(at < PAGE, "within the page");
        // SAFETY: the page is mapped writable, `at` is within it, and no reference into it exists.
        unsafe { self.0.cast::<u8>().add(at).write(byte) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, and what used it is gone. It can't fail for a mapped page.
        let _ = unsafe { munmap(self.0, PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_found_as_a_whole_word() {
        assert_eq!(flag_in("processor: 0\nflags\t\t: fpu svm sse\n"), Some("svm"));
        assert_eq!(flag_in("flags : fpu vmx"), Some("vmx"));
        assert_eq!(flag_in("flags : fpu vmxx svm_lock\nbugs: svm"), None);
        assert_eq!(flag_in(""), None);
    }

    #[test]
    fn a_missing_and_a_forbidden_device_are_told_apart() {
        assert_eq!(device_for(&io::Error::from_raw_os_error(2)), KvmDevice::Missing);
        assert_eq!(device_for(&io::Error::from_raw_os_error(13)), KvmDevice::Denied);
        assert!(matches!(device_for(&io::Error::from_raw_os_error(16)), KvmDevice::Unusable(_)));
    }

    #[test]
    fn without_the_processors_flag_it_is_not_usable() {
        let probe = KvmProbe { cpu_flag: None, device: KvmDevice::Open, runs_guest: Some(Ok(())) };
        assert!(!probe.usable());
    }
}
