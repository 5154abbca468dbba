//! The exit code is the command's own, or one of the few that are ours.

use cellule_tests::{Home, leftovers};

#[test]
fn the_commands_own_code_is_ours() {
    let home = Home::new();
    for code in [0, 1, 42, 255] {
        _ = home.run(["--quiet", "base", "sh", "-c", &format!("exit {code}")]).output().exits(code);
    }
    leftovers::assert_none(&home);
}

#[test]
fn a_death_by_signal_is_128_and_its_number() {
    let home = Home::new();
    _ = home.run(["base", "sh", "-c", "kill -KILL $$"]).output().exits(137).says(&["SIGKILL"]);
    _ = home.run(["base", "sh", "-c", "kill -SEGV $$"]).output().exits(139).says(&["SIGSEGV"]);
}

#[test]
fn a_timeout_is_124_and_kills_what_escaped_its_session() {
    let home = Home::new();
    let script = "setsid sleep 1000 & sleep 1000";
    let outcome = home.run(["--quiet", "--timeout", "1s", "base", "sh", "-c", script]).output().exits(124);
    assert!(outcome.err().contains("1 s") || outcome.err().contains("1.00 s"), "{}", outcome.err());
    leftovers::assert_none(&home);
}

#[test]
fn a_missing_program_is_127_and_named() {
    let home = Home::new();
    _ = home.run(["--quiet", "base", "no-such-program"]).output().exits(127).says(&["no-such-program"]);
    _ = home.run(["--quiet", "base", "/no/such/program"]).output().exits(127).says(&["/no/such/program"]);
}

#[test]
fn a_program_that_cannot_be_executed_is_126() {
    let home = Home::new();
    _ = home.run(["--quiet", "base", "/etc/passwd"]).output().exits(126).says(&["/etc/passwd"]);
    _ = home.run(["--quiet", "base", "/bin"]).output().exits(126);
}

#[test]
fn our_own_failures_are_125() {
    let home = Home::new();
    _ = home.run(["--pull", "never", "no-such-image"]).output().exits(125).says(&["no-such-image"]);
    let outcome = home.run(["--no-such-option", "base"]).output().exits(125);
    _ = outcome.says(&["unexpected argument", "--no-such-option"]);
    _ = home.run::<&str>([]).output().exits(125);
}

#[test]
fn a_guest_that_powers_itself_off_is_an_error_and_never_success() {
    let home = Home::new();
    // A second for the line to leave the guest: what a machine without power had not sent yet is lost.
    let script = "echo before; sleep 1; poweroff -f; sleep 60";
    let outcome = home.run(["--quiet", "base", "sh", "-c", script]).output().exits(125);
    assert_eq!(outcome.out(), "before\n");
    _ = outcome.says(&["powered off"]);
    leftovers::assert_none(&home);
}

#[test]
fn a_guest_kernel_that_panics_is_named() {
    let home = Home::new();
    let script = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 60";
    _ = home.run(["--quiet", "base", "sh", "-c", script]).output().exits(125).says(&["panic"]);
    leftovers::assert_none(&home);
}
