//! Programs of a Debian guest that use a network, with real servers on this host.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use cellule_tests::servers::{Nginx, name_server};
use cellule_tests::{Home, fixture};
use sha2::{Digest as _, Sha256};

/// What stands for this host in a guest.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 3);

/// A repository that can be cloned from a server of files.
fn repository(path: &Path) {
    let script = "set -e; export HOME=$0 GIT_CONFIG_NOSYSTEM=1; cd $0; git init -q work; cd work; echo 'fn main() {}' > main.rs; \
                  git add .; git -c user.name=x -c user.email=x@x.test commit -qm first; cd ..; \
                  git clone -q --bare work code.git; cd code.git; git update-server-info; rm -r ../work";
    let status = Command::new("sh").args(["-c", script]).arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn programs_of_a_guest_use_the_network_as_they_would_anywhere() {
    let nginx = Nginx::start();
    let data: Vec<u8> =
        (0..20_000_000_u32).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    fs::write(nginx.root().join("data"), &data).unwrap();
    fs::write(nginx.root().join("page"), "a page\n").unwrap();
    repository(&nginx.root());
    let sum = hex::encode(Sha256::digest(&data));
    let dns = name_server("web.test", HOST).to_string();

    let home = Home::new();
    let (http, http2) = (nginx.http.to_string(), nginx.http2.to_string());
    let image = fixture("clients.tar");
    let image = image.to_str().unwrap();
    let words = [
        "--network",
        "public",
        "--expose-host",
        &http,
        "--expose-host",
        &http2,
        "--dns",
        &dns,
        image,
        "sleep",
        "inf",
    ];
    let guest = home.detached(words);

    // Names: over datagrams and over a connection; one that is not there, and its other kind of address.
    assert_eq!(guest.sh("dig +short web.test"), format!("{HOST}\n"));
    assert_eq!(guest.sh("dig +tcp +short WEB.test"), format!("{HOST}\n"));
    assert!(guest.sh("dig nothing.test").contains("NXDOMAIN"));
    assert!(guest.sh("dig web.test AAAA").contains("status: NOERROR"));
    assert!(guest.sh("ping -c 2 -i 0.2 192.0.0.1").contains(" 0% packet loss"));

    // Down and up, over HTTP/1.1 and HTTP/2, several at a time.
    assert_eq!(guest.sh(&format!("curl -sS http://web.test:{http}/data | sha256sum")), format!("{sum}  -\n"));
    let fetch = format!(
        "curl -sS --http2-prior-knowledge -w '%{{http_version}}\\n' -o /data http://web.test:{http2}/data && sha256sum </data"
    );
    assert_eq!(guest.sh(&fetch), format!("2\n{sum}  -\n"));
    let upload = format!("curl -sS -w '%{{http_code}}' --data-binary @/data http://web.test:{http}/sink");
    assert_eq!(guest.sh(&upload), "204");
    let many = format!(
        "for i in 1 2 3 4 5 6; do (curl -sS http://web.test:{http}/data | sha256sum | cut -c1-64 > /sum$i) & done; wait; sort -u /sum?"
    );
    assert_eq!(guest.sh(&many), format!("{sum}\n"));

    assert_eq!(
        guest.sh(&format!("git clone -q http://web.test:{http}/code.git /code && cat /code/main.rs")),
        "fn main() {}\n"
    );
    let requests =
        format!("import requests; print(requests.get('http://web.test:{http}/page').text, end='')");
    assert_eq!(guest.sh(&format!("python3 -c \"{requests}\"")), "a page\n");
    let node = format!(
        "fetch('http://web.test:{http}/page').then(a => a.text()).then(a => process.stdout.write(a))"
    );
    assert_eq!(guest.sh(&format!("node -e \"{node}\"")), "a page\n");

    // What may not be is told at once, in words that each program has for it.
    let refused = guest.exec(&[], &["curl", "-sS", "--max-time", "20", "http://10.0.0.1/"]).output();
    assert_eq!(refused.code(), 7, "{}", refused.err());
    let refused = guest.exec(&[], &["curl", "-sS", "--max-time", "20", "http://169.254.169.254/"]).output();
    assert_eq!(refused.code(), 7, "{}", refused.err());
}
