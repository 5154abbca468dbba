//! Secrets: a guest sends placeholders, and real servers get the values.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cellule_tests::processes::signal;
use cellule_tests::servers::{Nginx, name_server};
use cellule_tests::{Home, eventually, fixture};
use rustix::process::Signal;

/// What stands for this host in a guest.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 3);
const VALUE: &str = "the-real-value-that-nobody-sees";

/// A server with a certificate of an authority that only its file names.
struct Api {
    nginx: Nginx,
    authority: String,
    dns: String,
}

impl Api {
    fn start(home: &Home) -> Self {
        let made = rcgen::generate_simple_self_signed(["api.test".to_owned()]).unwrap();
        let locations = format!(
            "location /header {{ if ($http_authorization = \"Bearer {VALUE}\") {{ return 204; }} return 403; }}\n\
             location /query {{ if ($arg_key = {VALUE}) {{ return 204; }} return 403; }}\n\
             location /echo {{ return 200 \"authorization=$http_authorization other=$http_x_other\\n\"; }}\n\
             location /length {{ return 200 \"$content_length\\n\"; }}"
        );
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let nginx = Nginx::with_locations(&certificate, &key, &locations);
        let authority = home.file("server.pem");
        fs::write(&authority, made.cert.pem()).unwrap();
        Self { nginx, authority, dns: name_server("api.test", HOST).to_string() }
    }

    /// The words of a sandbox that reaches it.
    fn words<'a>(&'a self, tls: &'a str) -> [&'a str; 6] {
        ["run", "-d", "--expose-host", tls, "--dns", &self.dns]
    }

    fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.nginx.tls)
    }
}

/// All files below a directory that have this in them.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let found = Command::new("grep").args(["-rlaF", "-e", text]).arg(dir).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_host_gets_a_secret_that_is_nowhere_in_the_sandbox() {
    let home = Home::new();
    let api = Api::start(&home);
    let (tls, image) = (api.nginx.tls.to_string(), fixture("clients.tar"));
    let answer = home.file("answer.json");
    fs::write(&answer, r#"{"value": "from-a-command", "ttl": 3600}"#).unwrap();
    let body = format!("BODY=cmd:cat {answer}@api.test");
    let secrets = [
        "--secret",
        "TOKEN=env:REAL_TOKEN@api.test",
        "--secret",
        "OTHER=value:another-real-value@else.test",
        "--secret",
        &body,
        "--secret-in-body",
        "BODY",
    ];
    let words = [&api.words(&tls)[..], &secrets, &[image.to_str().unwrap(), "sleep", "inf"]].concat();
    let started = home.cellule(words).env("REAL_TOKEN", VALUE).env("SSL_CERT_FILE", &api.authority).output();
    let guest = home.sandbox(started.exits(0).out().trim());

    let placeholder = guest.sh("printf %s \"$TOKEN\"");
    assert!(placeholder.starts_with("cellule-secret-"), "{placeholder}");
    // The server says whether it got the value: in a header and in the query, over HTTP/1.1 and HTTP/2.
    for version in ["--http1.1", "--http2"] {
        let ask = |options: &str, path: &str| {
            guest.sh(&format!(
                "curl -sS {version} -o /tmp/out -w '%{{http_code}}' {options} \"{}\"",
                api.url(path)
            ))
        };
        assert_eq!(ask("-H \"Authorization: Bearer $TOKEN\"", "/header"), "204", "{version}");
        assert_eq!(ask("-H 'Authorization: Bearer other'", "/header"), "403", "{version}");
        assert_eq!(ask("", "/query?key=$TOKEN"), "204", "{version}");
    }
    assert_eq!(guest.sh(&format!("curl -sS -d \"$BODY\" {}", api.url("/length"))), "14\n");
    // What comes back is scrubbed, and another host's secret goes out as it is.
    let url = api.url("/echo");
    let ask = format!("curl -sS -H \"Authorization: Bearer $TOKEN\" -H \"X-Other: $OTHER\" {url}");
    let other = guest.sh("printf %s \"$OTHER\"");
    let echoed = format!("authorization=Bearer {placeholder} other={other}\n");
    assert_eq!(guest.sh(&ask), echoed);
    let url = api.url("/header");
    let python = format!(
        "import os, requests; print(requests.get('{url}', headers={{'Authorization': 'Bearer ' + os.environ['TOKEN']}}).status_code)"
    );
    assert_eq!(guest.sh(&format!("python3 -c \"{python}\"")), "204\n");
    let node = format!(
        "fetch('{url}', {{headers: {{authorization: 'Bearer ' + process.env.TOKEN}}}}).then(a => console.log(a.status))"
    );
    assert_eq!(guest.sh(&format!("node -e \"{node}\"")), "204\n");

    // It is in no file of ours, and in nobody's environment or arguments.
    let (supervisor, engine) = guest.pids();
    for value in [VALUE, "another-real-value", "from-a-command"] {
        for process in [supervisor, engine] {
            for file in ["environ", "cmdline"] {
                let bytes = fs::read(format!("/proc/{process}/{file}")).unwrap();
                assert!(!String::from_utf8_lossy(&bytes).contains(value), "{process} {file}");
            }
        }
        assert_eq!(guest.call(["inspect"]).output().exits(0).out().matches(value).count(), 0);
        assert_eq!(files_with(&home.path().join("sandboxes"), value), Vec::<String>::new());
    }
    let limits = fs::read_to_string(format!("/proc/{supervisor}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert_eq!(fs::read_to_string(format!("/proc/{supervisor}/coredump_filter")).unwrap().trim(), "00000000");
    let shown = home.cellule(["network", "show", guest.id()]).output().exits(0).out();
    assert!(shown.contains("TOKEN from env:REAL_TOKEN for api.test") && !shown.contains(VALUE), "{shown}");
    let log = home.cellule(["logs", "--network", guest.id()]).output().exits(0).out();
    assert!(
        log.contains("secret OTHER at api.test: its placeholder was sent to a host that is none"),
        "{log}"
    );
    assert!(log.contains("secret TOKEN at api.test: the server answered with its value"), "{log}");

    // A copy has the same secrets, and its guest trusts the same authority.
    let forks = guest.call(["fork"]).env("SSL_CERT_FILE", &api.authority).output().exits(0).out();
    let copy = home.sandbox(forks.trim());
    assert_eq!(copy.sh(&ask), echoed);
    copy.remove();

    // Started again, it asks its starter's environment again; a value that was only typed is lost.
    _ = home.cellule(["stop", "-t", "1", guest.id()]).output().exits(0);
    _ = home
        .cellule(["start", guest.id()])
        .env("REAL_TOKEN", VALUE)
        .output()
        .exits(125)
        .says(&["OTHER was given with value:", "env:"]);
    guest.remove();
}

#[test]
fn a_snapshot_brings_placeholders_and_no_secrets() {
    let home = Home::new();
    let api = Api::start(&home);
    let (tls, image) = (api.nginx.tls.to_string(), fixture("clients.tar"));
    let key = home.file("key");
    fs::write(&key, format!("{VALUE}\n")).unwrap();
    let secret = format!("TOKEN=file:{key}@api.test");
    let words =
        [&api.words(&tls)[..], &["--secret", &secret, image.to_str().unwrap(), "sleep", "inf"]].concat();
    let id = home.cellule(words).env("SSL_CERT_FILE", &api.authority).output().exits(0).out();
    let guest = home.sandbox(id.trim());
    let ask = format!(
        "curl -sS -o /tmp/out -w '%{{http_code}}' -H \"Authorization: Bearer $TOKEN\" {}",
        api.url("/header")
    );
    let placeholder = guest.sh("printf %s \"$TOKEN\"");
    assert_eq!(guest.sh(&ask), "204");
    _ = guest.call_with(&["snapshot", "create"], &["saved"]).output().exits(0);
    // It is the snapshot's file that a stranger would have.
    assert_eq!(files_with(&home.path().join("snapshots"), VALUE), Vec::<String>::new());
    guest.remove();

    let network = ["--expose-host", &tls, "--dns", &api.dns];
    let from = [&["start", "--from", "saved"][..], &network].concat();
    let without = home.cellule(&from).output().exits(0);
    assert!(without.err().contains("placeholders of TOKEN"), "{}", without.err());
    let copy = home.sandbox(without.out().trim());
    let sent = copy.sh(&format!("curl -sSk -H \"Authorization: $TOKEN\" {}", api.url("/echo")));
    assert_eq!(sent, format!("authorization={placeholder} other=\n"));
    copy.remove();

    let again =
        home.cellule([&from[..], &["--secret", &secret]].concat()).env("SSL_CERT_FILE", &api.authority);
    let copy = home.sandbox(again.output().exits(0).out().trim());
    assert_eq!(copy.sh("printf %s \"$TOKEN\""), placeholder);
    assert_eq!(copy.sh(&ask), "204");
    copy.remove();
}

#[test]
fn a_secret_that_cannot_be_had_is_an_error_before_anything_runs() {
    let home = Home::new();
    let with = |secret: &str| home.cellule(["run", "--secret", secret, "base", "true"]).output();
    _ = with("T=env:CELLULE_NO_SUCH@a.test").exits(125).says(&["the secret T", "CELLULE_NO_SUCH"]);
    _ = with("T=file:/no/such/file@a.test").exits(125).says(&["the secret T", "No such file"]);
    _ = with("T=cmd:exit 3@a.test").exits(125).says(&["the secret T", "exit status: 3"]);
    let bad = with("T=value:hush-hush").exits(125);
    assert!(bad.err().contains("names no host") && !bad.err().contains("hush"), "{}", bad.err());
    _ = home
        .cellule(["create", "--secret", "T=value:hush-hush@a.test", "base", "true"])
        .output()
        .exits(125)
        .says(&["kept nowhere", "env:"]);
    // What could not start again is not stopped.
    let words = ["run", "-d", "--name", "kept", "--secret", "T=env:KEPT@a.test", "base", "sleep", "inf"];
    _ = home.cellule(words).env("KEPT", "hush-hush").output().exits(0);
    let kept = home.named("kept");
    _ = home.cellule(["restart", "kept"]).output().exits(125).says(&["the secret T", "KEPT"]);
    assert_eq!(kept.sh("echo alive"), "alive\n");
    _ = home.cellule(["restart", "-t", "0", "kept"]).env("KEPT", "hush-hush").output().exits(0);
    _ = kept.remove();
    // A command that does not end has its limit, and leaves nothing.
    let late = home.run(["--secret", "T=cmd:sleep 1000@a.test", "base", "true"]).output().exits(125);
    assert!(late.err().contains("longer than 10 seconds"), "{}", late.err());
    let slow = home.cellule(["run", "--secret", "T=cmd:sleep 1001@a.test", "base", "true"]).start();
    let runs = || Command::new("pgrep").args(["-f", "^sleep 1001"]).output().unwrap().status.success();
    eventually("the command runs", Duration::from_secs(20), runs);
    signal(slow.pid().as_raw_nonzero().get().unsigned_abs(), Signal::INT);
    slow.wait();
    eventually("the command is gone", Duration::from_secs(20), || !runs());
}
