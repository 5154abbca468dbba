//! A server that is neither this host's nor in its networks, in a namespace of the test's own: what a policy with names lets through.

use cellule_tests::apart::{Apart, FAR_V4, FAR_V6};
use cellule_tests::{Home, fixture, leftovers};
use serde_json::Value;

const VALUE: &str = "the-real-value-that-nobody-sees";

#[test]
fn under_an_allow_list_a_name_opens_its_own_server_and_nothing_else_that_is_there() {
    let made = rcgen::generate_simple_self_signed(["web.test".to_owned(), "other.test".to_owned()]).unwrap();
    let locations = format!(
        "location / {{ return 200 \"$host\\n\"; }}\n\
         location /secret {{ if ($http_authorization = {VALUE}) {{ return 204; }} return 403; }}"
    );
    let apart = Apart::new(&made.cert.pem(), &made.signing_key.serialize_pem(), &locations);
    let home = Home::new();
    let image = fixture("clients.tar");
    let words = [
        "run",
        "-d",
        "--name",
        "guest",
        "--allow",
        "web.test",
        "--host-names",
        "--secret",
        "TOKEN=env:REAL_TOKEN@web.test",
        image.to_str().unwrap(),
        "sleep",
        "inf",
    ];
    let started = apart.cellule(&home, &words).env("REAL_TOKEN", VALUE);
    _ = started.env("SSL_CERT_FILE", apart.certificate()).output().exits(0);
    let sh = |script: &str| apart.cellule(&home, &["exec", "guest", "sh", "-c", script]).output();
    let code = |options: &str| {
        sh(&format!("curl -sS -o /dev/null -w '%{{http_code}}' {options}; echo \" $?\"")).exits(0).out()
    };
    let refused = "000 7\n";

    // Nobody has looked the name up, so the address is nobody's.
    assert_eq!(code(&format!("http://{FAR_V4}/")), refused);
    assert_eq!(code("http://web.test/"), "200 0\n");
    assert_eq!(code("-6 http://web.test/"), "200 0\n");
    assert_eq!(code("-4 --http2 https://web.test/"), "200 0\n");
    assert_eq!(code("-4 http://other.test/"), "000 6\n", "there is no such name");
    // The same address by another name, or by none.
    for options in [
        format!("-H 'Host: other.test' http://{FAR_V4}/"),
        format!("-H 'Host: other.test' 'http://[{FAR_V6}]/'"),
        format!("-k --resolve other.test:443:{FAR_V4} https://other.test/"),
        format!("-k https://{FAR_V4}/"),
    ] {
        assert!(!code(&options).starts_with("20"), "{options}");
    }
    assert_eq!(code("-H \"Authorization: $TOKEN\" https://web.test/secret"), "204 0\n");
    assert_eq!(code("-H \"Authorization: $TOKEN\" http://web.test/secret"), "403 0\n", "not without TLS");
    let log = apart.cellule(&home, &["logs", "--network", "guest"]).output().exits(0).out();
    for line in [
        &format!("denied tcp  to {FAR_V4}:80: "),
        "the request's host is other.test",
        "the TLS server's name is other.test",
        "the TLS client names no server",
        "secret TOKEN at web.test: its placeholder was sent without TLS",
    ] {
        assert!(log.contains(line), "{line:?} is missing in\n{log}");
    }

    // What is opened anew is open; a name opens neither private addresses nor this host's own.
    let set = ["network", "set", "guest", "--network", "public", "--allow", "*.test"];
    _ = apart.cellule(&home, &set).output().exits(0);
    assert_eq!(code("http://other.test/"), "200 0\n");
    assert_eq!(code(&format!("http://{FAR_V4}/")), "200 0\n");
    for name in ["inside.test", "own.test"] {
        assert_eq!(code(&format!("http://{name}/")), refused, "{name}");
    }
    // Datagrams may be lost; and iperf3 counts until its other connection says that all is sent, which the last of it may still be
    // on the way behind.
    for (options, least) in [("", 4), ("-R -P 4", 4), ("-6", 4), ("-u -b 20M", 2)] {
        let said = sh(&format!("iperf3 -J -c web.test -n 4M {options}")).exits(0).out();
        let said: Value = serde_json::from_str(&said).unwrap();
        let received = said["end"]["sum_received"]["bytes"].as_u64();
        assert!(received >= Some((least << 20) - (128 << 10)), "{options}: {said}");
    }
    assert_eq!(sh("ping -q -c 1 web.test > /dev/null; echo $?").exits(0).out(), "0\n");
    _ = apart.cellule(&home, &["rm", "-f", "guest"]).output().exits(0);
    leftovers::assert_none(&home);
}
