use super::*;
use crate::policy::{Base, Policy};

fn hello_with(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0]);
    body.extend([0, 2, 0x13, 0x01]);
    body.extend([1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend(body);
    message
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

fn server_name(name: &str) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap();
    let mut body = (length + 3).to_be_bytes().to_vec();
    body.push(0);
    body.extend(length.to_be_bytes());
    body.extend(name.as_bytes());
    extension(0, &body)
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|part| {
            let mut record = vec![22, 3, 1];
            record.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            record.extend(part);
            record
        })
        .collect()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn tls(server: Option<&str>, encrypted: bool) -> Seen {
    Seen::Tls { server: server.map(name), encrypted }
}

fn judge(policy: &Policy, shown: &Name) -> Result<(), String> {
    let decision = policy.decide_name(shown, None, None);
    if decision.allowed { Ok(()) } else { Err(decision.reason.explain(policy).to_string()) }
}

#[test]
fn the_servers_name_is_found_however_the_message_is_cut() {
    let message = hello_with(&[extension(43, &[2, 3, 4]), server_name("Git.Example.com")].concat());
    for size in [1, 5, 40, 1000] {
        let said = records(&message, size);
        assert_eq!(see(&said), tls(Some("git.example.com"), false));
        for length in 1..said.len() {
            assert_eq!(see(&said[..length]), Seen::Incomplete, "{length} of {}", said.len());
        }
    }
    assert_eq!(see(&records(&hello_with(&[]), 999)), tls(None, false));
}

#[test]
fn an_encrypted_name_is_seen_beside_the_one_in_the_clear() {
    let extensions = [server_name("front.example"), extension(0xfe0d, &[0; 9])].concat();
    assert_eq!(see(&records(&hello_with(&extensions), 999)), tls(Some("front.example"), true));
}

#[test]
fn two_names_and_lengths_that_do_not_add_up_are_no_hello() {
    let twice = [server_name("a.example"), server_name("b.example")].concat();
    assert_eq!(see(&records(&hello_with(&twice), 999)), Seen::Broken);
    let mut two = server_name("a.example");
    two[5] -= 1;
    assert_eq!(see(&records(&hello_with(&two), 999)), Seen::Broken);
    let mut trailing = hello_with(&server_name("a.example"));
    trailing.extend([0; 3]);
    trailing[3] += 3;
    assert_eq!(see(&records(&trailing, 999)), Seen::Broken);
    assert_eq!(see(&[22, 3, 1, 0, 0, 22]), Seen::Broken);
    assert_eq!(see(&[22, 3, 1, 0, 1, 2]), Seen::Broken);
    assert_eq!(see(&records(&hello_with(&server_name("no name")), 999)), Seen::Broken);
}

#[test]
fn the_host_of_a_request_is_found() {
    let http = |host: Option<&str>| Seen::Http { host: host.map(name) };
    let cases: [(&str, Seen); 16] = [
        ("GET / HTTP/1.1\r\nHost: A.example:8080\r\n\r\n", http(Some("a.example"))),
        ("\r\nGET / HTTP/1.1\nhost:a.example\n\n", http(Some("a.example"))),
        ("GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n", http(Some("a.example"))),
        ("GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", Seen::Broken),
        ("GET http://x@b.example/ HTTP/1.1\r\n\r\n", Seen::Broken),
        ("CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", Seen::Broken),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", Seen::Broken),
        ("GET / HTTP/1.0\r\n\r\n", http(None)),
        ("GET / HTTP/1.1\r\nHost: 203.0.113.4:80\r\n\r\n", http(None)),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", http(None)),
        ("GET /\r\n", Seen::Other),
        ("GET / HTTP/1.1\r\nHost: a.exa", Seen::Incomplete),
        ("GE", Seen::Incomplete),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Seen::Http2),
        ("EHLO mail.example\r\n", Seen::Other),
        ("SSH-2.0-x\r\n", Seen::Other),
    ];
    for (said, seen) in cases {
        assert_eq!(see(said.as_bytes()), seen, "{said:?}");
    }
}

#[test]
fn what_some_server_takes_for_a_request_is_one() {
    let rest = b" / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    for method in ["A_B", "A1", "get", "M-SEARCH", "!", &"A".repeat(200)] {
        let said = [method.as_bytes(), rest].concat();
        assert_eq!(see(&said), Seen::Http { host: Some(name("a.example")) }, "{method}");
    }
    for before in [&b" "[..], b"\t", b"\r\n ", b"\x0b", b"\x85", b"\xa0"] {
        assert_eq!(see(&[before, b"GET", rest].concat()), Seen::Broken, "{before:?}");
        assert_eq!(see(before), Seen::Incomplete, "{before:?}");
    }
    assert_eq!(see(b"GET\x0b/ HTTP/1.1\r\nHost: a.example\r\n\r\n"), Seen::Broken);
    // What no server takes for one need not be waited for.
    for said in [&b"{\"a\": "[..], b"user:name", b"*1\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f", b"GET\0/ HTTP/1.1"]
    {
        assert_eq!(see(said), Seen::Other, "{said:?}");
    }
}

#[test]
fn what_some_server_reads_as_tls_is_not_taken_for_something_else() {
    let hello = records(&hello_with(&server_name("a.example")), 999);
    for before in [&[21, 3, 1, 0, 2, 1, 90][..], &[20, 3, 3, 0, 1, 1], &[23, 3, 3, 0, 1, 0]] {
        assert_eq!(see(&[before, &hello].concat()), Seen::Broken, "{before:?}");
        assert_eq!(see(&before[..1]), Seen::Incomplete);
    }
    // SSL 2's form, with its version and with a later one.
    for version in [[0, 2], [3, 1], [3, 3]] {
        let said = [&[0x80, 0x2e, 1][..], &version, &[0; 43]].concat();
        assert_eq!(see(&said), Seen::Broken, "{version:?}");
        assert_eq!(see(&said[..2]), Seen::Incomplete);
    }
    assert_eq!(see(&[0x81, 1, 2, 3]), Seen::Other);
}

#[test]
fn where_nothing_is_refused_whatever_cannot_be_read_passes() {
    let mut inspection = Inspection::of_secrets(true).unwrap();
    let mut look = |said: &[u8]| inspection.look(said, false, |_| Err("never".to_owned()));
    assert_eq!(look(b"PING"), Verdict::Wait);
    for said in
        [&b" GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\n", &[22, 3, 1, 0, 1, 2], &[21, 3, 1, 0]]
    {
        assert_eq!(look(said), Verdict::Passes(Spoken::Other), "{said:?}");
    }
    std::thread::sleep(BRIEFLY);
    assert_eq!(look(b"PING"), Verdict::Passes(Spoken::Other));
}

#[test]
fn under_an_allow_list_only_what_names_an_allowed_name_passes() {
    let policy = Policy::new(None, vec!["allow *.example".parse().unwrap()]).unwrap();
    let look = |said: &[u8], is_whole| {
        Inspection::needed(&policy, true, false).unwrap().look(said, is_whole, |name| judge(&policy, name))
    };
    let hello = |extensions: &[u8]| records(&hello_with(extensions), 999);
    assert_eq!(
        look(&hello(&server_name("a.example")), false),
        Verdict::Passes(Spoken::Tls(Some(name("a.example"))))
    );
    assert_eq!(look(b"\0binary", false), Verdict::Passes(Spoken::Other));
    assert_eq!(look(b"", false), Verdict::Wait);
    assert_eq!(look(&[22, 3], false), Verdict::Wait);
    let refused = [
        hello(&server_name("evil.test")),
        hello(&[]),
        hello(&[server_name("a.example"), extension(0xfe0d, &[])].concat()),
        b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_vec(),
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\n".to_vec(),
        [22, 3].to_vec(),
    ];
    for said in refused {
        assert!(matches!(look(&said, true), Verdict::Refused(..)), "{said:?}");
    }
}

#[test]
fn a_name_that_is_denied_is_refused_where_others_are_not() {
    let rules = vec!["deny evil.test".parse().unwrap()];
    let policy = Policy::new(Some(Base::Public), rules).unwrap();
    let mut inspection = Inspection::needed(&policy, false, false).unwrap();
    let request = |host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut look = |said: String| inspection.look(said.as_bytes(), false, |name| judge(&policy, name));
    assert_eq!(look(request("a.example")), Verdict::Passes(Spoken::Http(Some(name("a.example")))));
    assert!(matches!(look(request("evil.test")), Verdict::Refused((Some(_), _))));
    assert!(matches!(look("PRI * HTTP/2.0\r\n\r\n".to_owned()), Verdict::Refused((None, _))));
    assert!(
        Inspection::needed(&Policy::new(Some(Base::Public), Vec::new()).unwrap(), false, false).is_none()
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_look_panic(said: Vec<u8>, tls: bool) {
        let said = if tls { [vec![22, 3, 1], said].concat() } else { said };
        see(&said);
    }
}
