//! System call filters beside QEMU's own: no hole is cut into a file that others share.
//!
//! QEMU gives memory back to the host, which a guest has freed, in two steps: it cuts a hole into the file behind the memory
//! (`fallocate`), and drops the pages from its mapping (`madvise`). The file is the base that copies share, and must stay
//! as it is; the pages that the guest wrote are only in the mapping. If the first step fails, QEMU leaves out the second. So
//! the kernel is told to do nothing for the first, and to call that a success.
//!
//! In return nothing else in QEMU may rely on such a hole. Disks offer the guest neither to discard nor to zero; and where a
//! guest asks all the same, every other `fallocate` is told that there is no such thing, so that QEMU writes real zeros.
//!
//! It is for a QEMU that does what it should: one that a guest has taken over has the base open for writing.

use std::collections::BTreeMap;
use std::io;

use rustix::fs::FallocateFlags;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// `fallocate`'s second argument.
const MODE: u8 = 1;

/// The filters, ready to be set.
#[derive(Debug)]
pub(super) struct Filters([BpfProgram; 2]);

impl Filters {
    pub(super) fn no_holes() -> io::Result<Self> {
        let punches = u64::from(FallocateFlags::PUNCH_HOLE.bits());
        // An error of number 0 is none.
        let filters = || Ok([answer(punches, 0)?, answer(0, libc::EOPNOTSUPP.unsigned_abs())?]);
        filters().map(Self).map_err(|error: BackendError| io::Error::other(error))
    }

    /// Sets them for this process, and for what it becomes. Allocates nothing unless it fails.
    pub(super) fn set(&self) -> io::Result<()> {
        for filter in &self.0 {
            seccompiler::apply_filter(filter).map_err(|error| match error {
                seccompiler::Error::Prctl(source) | seccompiler::Error::Seccomp(source) => source,
                _ => io::ErrorKind::Unsupported.into(),
            })?;
        }
        Ok(())
    }
}

/// Answers each `fallocate` that punches, or each that does not, with an error.
fn answer(punches: u64, errno: u32) -> Result<BpfProgram, BackendError> {
    let operator = SeccompCmpOp::MaskedEq(u64::from(FallocateFlags::PUNCH_HOLE.bits()));
    let condition = SeccompCondition::new(MODE, SeccompCmpArgLen::Dword, operator, punches)?;
    let rules = BTreeMap::from([(libc::SYS_fallocate, vec![SeccompRule::new(vec![condition])?])]);
    let (others, these) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    SeccompFilter::new(rules, others, these, TargetArch::x86_64)?.try_into()
}
