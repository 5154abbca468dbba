//! Real input: a Debian root filesystem with Python, as an image of three layers, through a real registry.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cellule_tests::layout::{self, Compression, Entry};
use cellule_tests::servers::Registry;
use cellule_tests::{Home, fixture, leftovers};
use serde_json::json;
use sha2::{Digest as _, Sha256};

const APP: &[u8] = b"import os, sys\nprint(os.environ['GREETING'], sys.version_info.major, os.getcwd())\n";

/// Debian below; a layer that takes the documentation away and adds a program; one that replaces a file.
fn write_layout(dir: &std::path::Path) {
    let debian = fs::read(fixture("debian.tar")).unwrap();
    let middle = layout::layer(&[
        Entry::Whiteout("usr/share/doc"),
        Entry::Whiteout("etc/issue"),
        Entry::Dir("app", 0o755),
        Entry::File("app/main.py", 0o644, (1000, 1000), APP),
    ]);
    let top = layout::layer(&[Entry::File("etc/motd", 0o644, (0, 0), b"top\n")]);
    let config = json!({
        "Cmd": ["python3", "main.py"], "WorkingDir": "/app", "User": "nobody",
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GREETING=hello"],
    });
    layout::write(dir, "v1", "amd64", &[&debian, &middle, &top], Compression::Gzip, &config);
}

/// The image in a registry, and a state directory that has pulled it. One for all tests of this file.
struct Pulled {
    home: Home,
    image: String,
}

impl Pulled {
    fn new() -> Self {
        let work = tempfile::tempdir().unwrap();
        let layout: PathBuf = work.path().join("layout");
        write_layout(&layout);
        let registry = Registry::start();
        let image = format!("{}/test/python:v1", registry.address());
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:v1", layout.display()))
            .arg(format!("docker://{image}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
        let home = Home::new();
        _ = home.cellule(["pull", "--quiet", &image]).output().exits(0);
        Self { home, image }
    }

    fn run(&self, words: &[&str], command: &[&str]) -> cellule_tests::Call {
        self.home.run(
            ["--quiet", "--pull", "never"].iter().chain(words).chain(&[self.image.as_str()]).chain(command),
        )
    }

    fn python(&self, program: &str) -> cellule_tests::Call {
        self.run(&["-i"], &["python3", "-c", program])
    }
}

#[test]
fn python_runs_in_a_debian_image_from_a_real_registry() {
    let pulled = Pulled::new();

    // The image's own settings, and its layers one over the other.
    assert_eq!(pulled.run(&[], &[]).output().exits(0).out(), "hello 3 /app\n");
    let look =
        "ls -d /usr/share/doc /etc/issue 2>/dev/null; cat /etc/motd; stat -c %u:%g /app/main.py; id -un";
    assert_eq!(pulled.run(&[], &["sh", "-c", look]).output().exits(0).out(), "top\n1000:1000\nnobody\n");

    // Exit codes and signals.
    _ = pulled.python("import sys; sys.exit(23)").output().exits(23);
    _ = pulled.python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)").output().exits(143);
    let outcome = pulled.python("raise ValueError('boom')").output().exits(1);
    assert!(outcome.err().contains("ValueError: boom") && outcome.out().is_empty());

    // Users and environment.
    let who = "import os; print(os.getuid(), os.getgid(), os.environ.get('A'))";
    let outcome = pulled.run(&["-u", "daemon", "-e", "A=1 2"], &["python3", "-c", who]).output().exits(0);
    assert_eq!(outcome.out(), "1 1 1 2\n");

    leftovers::assert_none(&pulled.home);
}

#[test]
fn python_reads_a_hundred_megabytes_of_standard_input() {
    let pulled = Pulled::new();
    let input: Vec<u8> = (0..100_000_000_u32).map(|n| (n ^ (n >> 8)).to_le_bytes()[0]).collect();
    let program = "import sys, hashlib\nh = hashlib.sha256()\nn = 0\n\
                   while chunk := sys.stdin.buffer.read(1 << 20):\n    h.update(chunk); n += len(chunk)\nprint(n, h.hexdigest())";
    let expected = format!("100000000 {}\n", hex::encode(Sha256::digest(&input)));
    assert_eq!(pulled.python(program).stdin(input).output().exits(0).out(), expected);
    leftovers::assert_none(&pulled.home);
}
