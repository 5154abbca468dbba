//! The guest kernel's command line, each part with its reason.

use crate::ConfigError;

/// The kernel's own limit on x86, its closing NUL included.
const MAX: usize = 2047;

/// What every guest gets, whoever it is for.
const FIXED: &[&str] = &[
    // The console is the first serial port; there is one, and no keyboard or screen.
    "console=ttyS0",
    "8250.nr_uarts=1",
    // Each line costs a trap per byte. Errors and panics are still shown.
    "quiet",
    // The counter is the host's, whose frequency we give (see `tsc`): nothing to calibrate it by, nothing to watch
    // it with, and a timer check that fails when the host is busy.
    "tsc=reliable",
    "no_timer_check",
    // They guard against a processor that speculates along the guest's own branches and addresses. Emulated code
    // is QEMU's, and runs under the host's mitigations; the guest's would cost time and guard nothing.
    "mitigations=off",
    // No auditing daemon; a system call costs less without it.
    "audit=0",
    // An autogroup for each session, pressure statistics for each control group, and the kernel's own memory counted for
    // each: all of them are work at every start of a program, and nobody in the guest asks for them.
    "noautogroup",
    "psi=0",
    "cgroup.memory=nokmem,nosocket",
    // No security modules but the one that programs use by themselves: nobody loads a policy, and each is asked at every
    // start of a program.
    "lsm=landlock",
    // A busy host stops a guest for long enough to set the watchdog off.
    "nowatchdog",
    // RDRAND is emulated with the host's own random numbers: the guest's generator is ready from the start.
    "random.trust_cpu=1",
    // A panic resets at once, by a triple fault, and QEMU ends at a reset: so a panic is seen at once.
    "panic=-1",
    "reboot=t",
];

/// Parts of the kernel that cost 20 to 190 ms each under emulation, found with `initcall_debug`, and what is missing
/// without them. None of them is for hardware or a file system that the machine has.
const SKIPPED: &[&str] = &[
    // TCP congestion control written in BPF; a self-test of BPF; BPF iterators over sockmaps.
    "bpf_tcp_ca_kfunc_init",
    "bpf_dummy_struct_ops_init",
    "bpf_sockmap_iter_init",
    // The keys that signed the modules: they load as "not verified", which taints the kernel and nothing more.
    "load_system_certificate_list",
    // Random numbers from the processor's jitter, which an emulated one has not; RDRAND is there.
    "jent_mod_init",
    // Names in place of numbers in trace output; the files of the function-graph tracer.
    "trace_eval_init",
    "init_graph_tracefs",
    // HDMI's control bus; memory on CXL; interrupt remapping; PCI's files in /sys. No such hardware.
    "cec_init",
    "cxl_port_init",
    "dmar_free_unused_resources",
    "pci_sysfs_init",
    // Keys of the type "encrypted" in the kernel's keyrings.
    "init_encrypted",
    // Only a self-test of a key derivation function.
    "crypto_kdf108_init",
];

/// Puts the line together. `more` is the caller's.
pub(super) fn build(tsc_khz: u64, more: &str) -> Result<String, ConfigError> {
    let line = format!(
        "{} tsc_early_khz={tsc_khz} initcall_blacklist={} {more}",
        FIXED.join(" "),
        SKIPPED.join(",")
    );
    let line = line.trim_end();
    if line.len() > MAX || !line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Err(ConfigError::Cmdline { max: MAX });
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_part_comes_last() {
        let line = build(2_600_000, "quiet x=y").expect("a good line");
        assert!(line.contains(" tsc_early_khz=2600000 "), "{line}");
        assert!(line.ends_with(" quiet x=y"), "{line}");
    }

    #[test]
    fn a_line_that_is_too_long_or_not_plain_is_refused() {
        let long = "x".repeat(MAX);
        for bad in [long.as_str(), "a\nb", "a\0b", "ä"] {
            assert_eq!(build(1, bad), Err(ConfigError::Cmdline { max: MAX }), "{bad:?}");
        }
    }
}
