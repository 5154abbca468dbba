//! A system call filter beside QEMU's own: no hole is cut into a file.
//!
//! QEMU gives memory back to the host, which a guest has freed, in two steps: it cuts a hole into the file behind the memory
//! (`fallocate`), and drops the pages from its mapping (`madvise`). The file is the base that copies share, and must stay
//! as it is; the pages that the guest wrote are only in the mapping. If the first step fails, QEMU leaves out the second. So
//! the kernel is told to do nothing for the first, and to call that a success; and a QEMU that a guest has taken over has no
//! other `fallocate` either.
//!
//! In return nothing else in QEMU may rely on such a hole: disks take no requests to discard or to zero.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// `fallocate`'s second argument.
const MODE: u8 = 1;

/// The filter, ready to be set.
pub(super) fn no_holes() -> io::Result<BpfProgram> {
    let punches = u64::from(rustix::fs::FallocateFlags::PUNCH_HOLE.bits());
    let filter = || -> Result<BpfProgram, seccompiler::BackendError> {
        let operator = SeccompCmpOp::MaskedEq(punches);
        let condition = SeccompCondition::new(MODE, SeccompCmpArgLen::Dword, operator, punches)?;
        let rules = BTreeMap::from([(libc::SYS_fallocate, vec![SeccompRule::new(vec![condition])?])]);
        // An error of number 0 is none.
        let (others, these) = (SeccompAction::Allow, SeccompAction::Errno(0));
        SeccompFilter::new(rules, others, these, TargetArch::x86_64)?.try_into()
    };
    filter().map_err(io::Error::other)
}

/// Sets it for this process, and for what it becomes. Allocates nothing unless it fails.
pub(super) fn set(filter: &BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter(filter).map_err(|error| match error {
        seccompiler::Error::Prctl(source) | seccompiler::Error::Seccomp(source) => source,
        _ => io::ErrorKind::Unsupported.into(),
    })
}
