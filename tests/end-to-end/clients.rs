//! Programs of a Debian guest that use a network, with real servers on this host.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use cellule_tests::servers::{Iperf, Nginx, name_server};
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
    let iperf = Iperf::start();

    let home = Home::new();
    let (http, http2, filled) = (nginx.http.to_string(), nginx.http2.to_string(), iperf.port.to_string());
    let image = fixture("clients.tar");
    let image = image.to_str().unwrap();
    let words = [
        "--network",
        "public",
        "--expose-host",
        &http,
        "--expose-host",
        &http2,
        "--expose-host",
        &filled,
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

    // As fast as it goes, both ways at once too; who sends is told that all of it arrived.
    for way in ["", "-R", "--bidir"] {
        let said = guest.sh(&format!("iperf3 -c web.test -p {filled} -t 1 -P 4 {way} -J"));
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let (sent, received) = (&said["end"]["sum_sent"]["bytes"], &said["end"]["sum_received"]["bytes"]);
        assert!(
            sent.as_u64() > Some(1 << 20) && received.as_u64() > Some(1 << 20),
            "{way} {sent} {received}"
        );
    }

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

/// Makes an authority and a certificate of its for `web.test`, and writes all of it one after the other.
const AUTHORITY: &str = "set -e; cd /tmp; exec 2>/dev/null
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=a company' -keyout ca.key -out ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=web.test -keyout key.pem -out request
    printf 'subjectAltName=DNS:web.test\n' > names
    openssl x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out certificate.pem
    touch index; echo 01 > number
    printf '[ca]\ndefault_ca=x\n[x]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=2\n' > settings
    openssl ca -config settings -gencrl -keyfile ca.key -cert ca.pem -out list
    cat ca.pem; echo ===; cat certificate.pem; echo ===; cat key.pem; echo ===; cat list";

/// Makes a wheel and writes it as hexadecimal digits.
const WHEEL: &str = "
import io, zipfile
data = io.BytesIO()
with zipfile.ZipFile(data, 'w') as wheel:
    wheel.writestr('tiny.py', 'word = \\'small\\'')
    wheel.writestr('tiny-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n')
    wheel.writestr('tiny-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr('tiny-1.0.dist-info/RECORD', '')
print(data.getvalue().hex())";

fn decoded(digits: &str) -> Vec<u8> {
    hex::decode(digits.trim()).unwrap()
}

/// An archive of Debian's form with a single package.
fn debian_archive(dir: &Path) {
    let script = "set -e; mkdir -p $0/tree/DEBIAN $0/tree/usr/share; echo small > $0/tree/usr/share/tiny-word; \
                  printf 'Package: tiny-word\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@x.test>\\nDescription: a word\\n' \
                  > $0/tree/DEBIAN/control; dpkg-deb --root-owner-group -b $0/tree $0/tiny-word.deb >/dev/null; cd $0; \
                  { cat tree/DEBIAN/control; echo Filename: ./tiny-word.deb; echo Size: $(stat -c %s tiny-word.deb); \
                  echo SHA256: $(sha256sum tiny-word.deb | cut -d' ' -f1); } > Packages; chmod -R a+rX $0";
    let status = Command::new("sh").args(["-c", script]).arg(dir).status().unwrap();
    assert!(status.success());
}

#[test]
fn what_the_hosts_administrator_trusts_programs_trust_where_they_are_told_to() {
    let home = Home::new();
    let image = fixture("clients.tar");
    let image = image.to_str().unwrap();
    let made = home.run([image, "sh", "-c", AUTHORITY]).output().exits(0).out();
    let [authority, certificate, key, list] = made.split("===\n").collect::<Vec<_>>()[..] else {
        panic!("{made}")
    };
    let nginx = Nginx::with_certificate(certificate, key);
    fs::write(nginx.root().join("page"), "a page\n").unwrap();
    repository(&nginx.root());
    let file = home.file("authority.pem");
    fs::write(&file, authority).unwrap();
    let dns = name_server("web.test", HOST).to_string();
    let tls = nginx.tls.to_string();
    let url = format!("https://web.test:{tls}/page");

    let untrusting = home.run(["--expose-host", &tls, "--dns", &dns, image, "curl", "-sS", &url]).output();
    assert_eq!(untrusting.code(), 60, "{}", untrusting.err());

    let words = ["run", "-d", "--trust-host-ca", "--expose-host", &tls, "--dns", &dns, image, "sleep", "inf"];
    let id = home.cellule(words).env("NODE_EXTRA_CA_CERTS", &file).output().exits(0).out();
    let guest = home.sandbox(id.trim());
    assert_eq!(guest.sh(&format!("curl -sS {url}")), "a page\n");
    // GnuTLS, which knows the file of the distribution and no variable.
    assert_eq!(
        guest.sh(&format!("git clone -q https://web.test:{tls}/code.git /code && ls /code")),
        "main.rs\n"
    );
    let python = format!(
        "import urllib.request, requests; print(urllib.request.urlopen('{url}').read() == requests.get('{url}').content)"
    );
    assert_eq!(guest.sh(&format!("python3 -c \"{python}\"")), "True\n");
    let node = format!("fetch('{url}').then(a => a.text()).then(a => process.stdout.write(a))");
    assert_eq!(guest.sh(&format!("node -e \"{node}\"")), "a page\n");
    // Python's installer, from an index of packages.
    let wheel = guest.sh(&format!("python3 -c \"{WHEEL}\""));
    fs::create_dir_all(nginx.root().join("simple/tiny")).unwrap();
    fs::write(nginx.root().join("simple/tiny/tiny-1.0-py3-none-any.whl"), decoded(&wheel)).unwrap();
    fs::write(nginx.root().join("simple/tiny/index.html"), "<a href='tiny-1.0-py3-none-any.whl'>tiny</a>")
        .unwrap();
    let index = format!("https://web.test:{tls}/simple/");
    guest.sh(&format!(
        "pip install -q --root-user-action=ignore --break-system-packages --index-url {index} tiny"
    ));
    assert_eq!(guest.sh("python3 -c 'import tiny; print(tiny.word)'"), "small\n");
    // Debian's, from an archive of packages.
    debian_archive(&nginx.root().join("debian"));
    let install = format!(
        "echo 'deb [trusted=yes] https://web.test:{tls}/debian ./' > /etc/apt/sources.list && rm -f /etc/apt/sources.list.d/* && \
         apt-get -qq update && apt-get -qq install tiny-word >/dev/null 2>&1 && cat /usr/share/tiny-word"
    );
    assert_eq!(guest.sh(&install), "small\n");
    // Java's keytool, which gets what it is to print as any program of Java's would.
    fs::write(nginx.root().join("list"), list).unwrap();
    let java = fixture("java.tar");
    let list = format!("https://web.test:{tls}/list");
    let words = ["run", "--trust-host-ca", "--expose-host", &tls, "--dns", &dns, java.to_str().unwrap()];
    let words = [&words[..], &["keytool", "-printcrl", "-file", &list]].concat();
    let printed = home.cellule(words).env("NODE_EXTRA_CA_CERTS", &file).output().exits(0).out();
    assert!(printed.contains("Issuer: CN=a company"), "{printed}");
    // What the image trusts is still there.
    assert!(
        guest.sh("grep -c BEGIN /etc/ssl/certs/ca-certificates.crt").trim().parse::<u32>().unwrap() > 100
    );
}
