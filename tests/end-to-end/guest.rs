//! What a program sees of its machine: the filesystems, the devices, the limits.

use cellule_tests::Home;

fn out(script: &str) -> String {
    let home = Home::new();
    home.run(["--quiet", "base", "sh", "-c", script]).output().exits(0).out()
}

#[test]
fn the_usual_filesystems_are_mounted() {
    let mounts = out("cat /proc/mounts");
    for (path, kind) in [
        ("/", "overlay"),
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/sys/fs/cgroup", "cgroup2"),
    ] {
        let found = mounts.lines().any(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            fields[1] == path && fields[2] == kind
        });
        assert!(found, "{path} as {kind} in\n{mounts}");
    }
}

#[test]
fn devices_are_a_containers() {
    let script = "for d in null zero full random urandom tty ptmx; do [ -c /dev/$d ] || echo no $d; done
                  ls -l /dev/stdin | grep -q /proc/self/fd/0 || echo no stdin
                  stat -c %a /tmp; head -c 8 /dev/urandom | wc -c; ip link show lo | grep -c LOOPBACK,UP";
    assert_eq!(out(script), "1777\n8\n1\n");
}

#[test]
fn the_network_is_set_up_and_the_same_for_all_but_the_cards_own_address() {
    let home = Home::new();
    let script = "cat /sys/class/net/eth0/address; cat /sys/class/net/eth0/mtu; ip route | grep default
                  ip -6 route | grep -c 'default via fd4e:7c31:5a9d::1'; ip -6 addr show eth0 | grep -c inet6
                  ip addr show eth0 | grep -o 'inet6* [^ ]*'; cat /etc/resolv.conf; grep -c $(hostname) /etc/hosts";
    let [first, second] = [(); 2].map(|()| {
        let out = home.run(["--quiet", "base", "sh", "-c", script]).output().exits(0).out();
        let (mac, rest) = out.split_once('\n').map(|(mac, rest)| (mac.to_owned(), rest.to_owned())).unwrap();
        assert!(mac.starts_with("02:") && mac.len() == 17, "{mac}");
        let same = "65520\ndefault via 192.0.0.1 dev eth0 \n1\n1\ninet 192.0.0.2/29\ninet6 fd4e:7c31:5a9d::2/64\n\
                    nameserver 192.0.0.1\n2\n";
        assert_eq!(rest, same);
        mac
    });
    assert_ne!(first, second);
}

#[test]
fn an_ordinary_user_can_write_to_its_standard_streams_by_name() {
    let home = Home::new();
    let script = "echo out > /dev/stdout; echo err > /dev/stderr";
    let outcome = home.run(["--quiet", "-u", "nobody", "base", "sh", "-c", script]).output().exits(0);
    assert_eq!((outcome.out().as_str(), outcome.err().as_str()), ("out\n", "err\n"));
}

#[test]
fn writes_beyond_half_of_memory_are_refused_and_the_guest_lives() {
    let script = "dd if=/dev/zero of=/big bs=1M 2>&1 | grep -c 'No space left'
                  kib=$(du -k /big | cut -f1); total=$(awk '/MemTotal/ { print $2 }' /proc/meminfo)
                  [ $kib -le $((total / 2 + 1024)) ] && echo bounded
                  rm /big && echo alive";
    assert_eq!(out(script), "1\nbounded\nalive\n");
}

#[test]
fn a_program_that_takes_all_memory_is_killed_and_the_guest_lives_to_say_so() {
    let home = Home::new();
    // A string that doubles until there is no room for it.
    let script = "x=$(head -c 1000000 /dev/zero | tr '\\0' x); while :; do x=$x$x; done";
    let words = ["--quiet", "--memory", "160m", "base", "sh", "-c", script];
    let outcome = home.run(words).output();
    // The shell may also find out by itself that there is no more.
    assert!([137, 2].contains(&outcome.code()), "exit code {}\n{}", outcome.code(), outcome.err());
}

#[test]
fn no_descriptor_of_the_agent_is_inherited() {
    assert_eq!(out("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3 ", "the fourth is the listing's own");
}

#[test]
fn every_run_is_a_machine_of_its_own() {
    let home = Home::new();
    let ask = || {
        home.run([
            "--quiet",
            "base",
            "cat",
            "/proc/sys/kernel/random/boot_id",
            "/proc/sys/kernel/random/uuid",
        ])
    };
    let (first, second) = (ask().output().exits(0).out(), ask().output().exits(0).out());
    assert!(first.lines().zip(second.lines()).all(|(a, b)| a != b), "{first}{second}");
}
