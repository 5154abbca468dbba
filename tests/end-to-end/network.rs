//! The network of sandboxes: ports that lead in, what programs reach, and that what is asked, done and told agrees.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use cellule::Host;
use cellule::network::Base;
use cellule_tests::sandbox::Sandbox;
use cellule_tests::{HANG, Home, binary, eventually, leftovers, processes};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SERVER: &str = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www";

/// What a server of pages answers there.
#[track_caller]
fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Where this host listens for a sandbox.
#[track_caller]
fn ports(sandbox: &Sandbox<'_>) -> Vec<SocketAddr> {
    let known = sandbox.inspect();
    let ports = known["network"]["ports"].as_array().unwrap();
    ports.iter().map(|port| port["host"].as_str().unwrap().parse().unwrap()).collect()
}

/// A server of this host's that greets, and then hears whether its client stays.
fn greeter(address: &str) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"hello\n").unwrap();
        // A reset is an end too.
        _ = stream.read(&mut [0]);
    });
    (address, serving)
}

#[test]
fn a_port_leads_in_is_told_and_is_each_copys_own() {
    let home = Home::new();
    let web = home.detached(["--name", "web", "-p", "0:80", "base", "sh", "-c", SERVER]);
    let [address] = ports(&web).try_into().unwrap();
    assert!(get(address).ends_with("page\n"));
    let shown = format!("{address}->80/tcp");
    assert!(home.cellule(["ps"]).output().exits(0).out().contains(&shown));
    assert_eq!(home.ps(["-a"])[0]["ports"][0]["host"], json!(address.to_string()));
    let listed = home.cellule(["port", "ls", "web"]).output().exits(0).out();
    assert!(listed.lines().any(|line| line.split_whitespace().eq([&*shown, "up"])), "{listed}");

    // One that is taken is named, and whoever wanted it is not there.
    let taken = format!("{address}:81");
    let outcome = home.run(["-q", "-d", "-p", &taken, "base", "sleep", "1000"]).output().exits(125);
    _ = outcome.says(&[&format!("cannot listen on {address}"), "in use", "hint"]);
    assert_eq!(home.ps(["-a"]).len(), 1);

    let added = home.cellule(["port", "add", "web", "0:80"]).output().exits(0).out();
    let added: SocketAddr = added.trim_end().parse().unwrap();
    assert!(get(added).ends_with("page\n"));
    let place = added.to_string();
    assert_eq!(home.cellule(["port", "rm", "web", &place]).output().exits(0).out(), format!("{place}\n"));
    TcpStream::connect(added).expect_err("nobody listens there any more");
    _ = home.cellule(["port", "rm", "web", &place]).output().exits(125).says(&[&place]);

    _ = web.call(["pause"]).output().exits(0);
    _ = web.call(["unpause"]).output().exits(0);
    assert!(get(address).ends_with("page\n"));

    _ = home.cellule(["fork", "-q", "web", "--name", "copy"]).output().exits(0);
    let copy = home.named("copy");
    copy.sh("echo mine > /www/index.html");
    _ = home.cellule(["snapshot", "create", "-q", "web", "one"]).output().exits(0);
    let words = ["start", "--from", "one", "--name", "again", "--network", "none", "-p", "0:80"];
    _ = home.cellule(words).output().exits(0).says(&["leads to port 80"]);
    let again = home.named("again");
    assert_eq!(again.inspect()["network"]["mode"], "none");
    for (sandbox, page) in [(&copy, "mine\n"), (&again, "page\n"), (&web, "page\n")] {
        let [own] = ports(sandbox).try_into().unwrap();
        assert!(own == address || sandbox.id() != web.id(), "{own} is not where it was");
        assert!(get(own).ends_with(page));
    }
    for sandbox in [web, copy, again] {
        _ = sandbox.remove();
    }
    _ = home.cellule(["snapshot", "rm", "one"]).output().exits(0);
    leftovers::assert_none(&home);
}

#[test]
fn what_is_said_of_a_connection_is_what_becomes_of_it_and_is_told_afterwards() {
    let home = Home::new();
    let (host, serving) = greeter("127.0.0.1");
    let exposed = format!("{}:7000", host.port());
    let words = ["--deny", "203.0.113.0/24", "--expose-host", &exposed, "base", "sleep", "1000"];
    let sandbox = home.detached(words);
    let check = |to: &str| sandbox.call_with(&["network", "check"], &[to]).output();
    for (address, port, reason) in [
        ("203.0.113.7", "443", "rule 1: deny 203.0.113.0/24"),
        ("10.0.0.1", "80", "10.0.0.1 is a private address"),
        ("169.254.169.254", "80", "169.254.169.254 is"),
    ] {
        let said = check(&format!("{address}:{port}")).exits(1).out();
        assert!(said.contains("refused") && said.contains(reason), "{said}");
        _ = sandbox.exec(&[], &["nc", "-w", "5", address, port]).output().exits(1);
        let told = sandbox.call(["logs", "--network"]).output().exits(0).out();
        let line = told.lines().find(|line| line.contains(&format!("to {address}:{port}")));
        let line = line.unwrap_or_else(|| panic!("{address} in\n{told}"));
        assert!(line.starts_with("denied tcp") && line.contains(reason), "{line}");
    }
    assert!(check("host.cellule.internal:7000").exits(0).out().contains("allowed"));
    _ = check("host.cellule.internal:7001").exits(1);
    assert_eq!(sandbox.sh("nc -w 10 host.cellule.internal 7000 < /dev/null"), "hello\n");
    serving.join().unwrap();
    let records = || -> Vec<Value> {
        let told = sandbox.call(["logs", "--network", "--format", "jsonl"]).output().exits(0).out();
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    eventually("the connection is told", HANG, || {
        records().iter().any(|record| record["name"] == "host.cellule.internal" && record["received"] == 6)
    });
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn what_is_closed_while_it_runs_is_cut_and_stays_closed() {
    let home = Home::new();
    // An address of this host's own that is not its loopback, which programs never reach. Nothing is sent for that.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").expect("this host has a network");
    let own = socket.local_addr().unwrap().ip().to_string();
    let (host, serving) = greeter(&own);
    let sandbox = home.detached(["--name", "web", "--network", "all", "base", "sleep", "1000"]);
    let to = host.to_string();
    let check = |code| sandbox.call_with(&["network", "check"], &[&to]).output().exits(code).out();
    assert!(check(0).contains("--network all"));
    let script = format!("sleep 1000 | nc {own} {} > /got; echo over > /over", host.port());
    _ = sandbox.exec(&["-d"], &["sh", "-c", &script]).output().exits(0);
    eventually("it is greeted", HANG, || sandbox.sh("cat /got 2>/dev/null; true") == "hello\n");

    _ = home.cellule(["network", "set", "web"]).output().exits(125).says(&["--network none"]);
    let set = home.cellule(["network", "set", "web", "--network", "none"]).output().exits(0).out();
    assert_eq!(set, "web\n");
    serving.join().unwrap();
    eventually("its reset is told", HANG, || {
        let told = sandbox.call(["logs", "--network"]).output().exits(0).out();
        told.lines().any(|line| line.starts_with("reset  tcp") && line.contains(&to))
    });
    assert!(check(1).contains("no rule allows it"));
    assert_eq!(sandbox.inspect()["network"]["mode"], "none");
    let shown = sandbox.call(["network", "show"]).output().exits(0).out();
    assert!(shown.contains("none: all the rest is refused"), "{shown}");

    _ = home.cellule(["stop", "-t", "0", "web"]).output().exits(0);
    _ = home.cellule(["network", "set", "web", "--allow", "example.com"]).output().exits(0);
    // So do ports: one that is taken meanwhile would keep it from starting.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let port = |words: &[&str]| home.cellule(["port"].iter().chain(words)).output();
    _ = port(&["add", "web", &format!("{taken}:80"), "0:81"]).exits(0);
    _ = port(&["add", "web", &format!("{taken}:82")]).exits(125).says(&["already"]);
    _ = home.cellule(["start", "web"]).output().exits(125).says(&["cannot listen"]);
    _ = port(&["rm", "web", &taken]).exits(0);
    _ = port(&["rm", "web", &taken]).exits(125).says(&["does not lead", "port ls web"]);
    let listed = port(&["ls", "web"]).exits(0).out();
    assert!(listed.contains("127.0.0.1:0->81/tcp") && listed.contains("stopped"), "{listed}");
    assert!(!listed.contains(&taken), "{listed}");
    _ = home.cellule(["start", "web"]).output().exits(0);
    assert_eq!(sandbox.inspect()["network"]["rules"], json!(["allow example.com"]));
    _ = sandbox.remove();
    leftovers::assert_none(&home);
}

#[test]
fn the_library_reaches_a_port_of_one_without_a_network() {
    let home = Home::new();
    let host = Host::at(home.path()).unwrap().with_program(binary());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let sandbox = host.sandbox("base").network(Base::None).start().await.unwrap();
        let mut server = sandbox.command("nc");
        server.args(["-ll", "-p", "7000", "-e", "cat"]);
        let _server = server.spawn().await.unwrap();
        let mut stream = loop {
            match sandbox.connect_port(7000).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        stream.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
        drop(stream);
        sandbox.end().await.unwrap();
    };
    runtime.block_on(async { tokio::time::timeout(HANG, Box::pin(test)).await.expect("it ends in time") });
    leftovers::assert_none(&home);
}

#[test]
fn sandboxes_on_a_network_reach_one_another_by_name_and_nobody_else_does() {
    let home = Home::new();
    assert_eq!(home.cellule(["network", "create", "back"]).output().exits(0).out(), "back\n");
    _ = home.cellule(["network", "create", "back"]).output().exits(125).says(&["already"]);
    let words = ["run", "--network", "front", "base", "true"];
    _ = home.cellule(words).output().exits(125).says(&["no network front", "network create front"]);

    let on = ["--network", "back", "--network", "none"];
    let web = home.detached([&["--name", "Web"], &on[..], &["base", "sh", "-c", SERVER]].concat());
    let client = home.detached([&["--name", "client"], &on[..], &["base", "sleep", "1000"]].concat());
    let stranger = home.detached(["--name", "stranger", "base", "sleep", "1000"]);
    let get = |name: &str| {
        format!("printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 20 {name} 80 | tail -n 1")
    };
    for name in ["web", "web.back", web.id()] {
        assert_eq!(client.sh(&get(name)), "page\n", "{name}");
    }
    assert_eq!(web.sh("ping -q -c 1 client > /dev/null && echo there"), "there\n");
    let refused = client.exec(&[], &["nc", "-w", "20", "web", "81"]).output().exits(1);
    assert!(refused.err().contains("refused"), "{}", refused.err());
    let address = client.sh("nslookup web | sed -n 's/^Address: 198/198/p'").trim().to_owned();
    for target in ["web", &address] {
        _ = stranger.exec(&[], &["nc", "-w", "20", target, "80"]).output().exits(1);
    }
    _ = client.exec(&[], &["nc", "-w", "20", "stranger", "80"]).output().exits(1);
    let said = client.call_with(&["network", "check"], &["web:80"]).output().exits(0).out();
    assert!(said.contains("on the network back"), "{said}");
    let log = |sandbox: &Sandbox<'_>| sandbox.call(["logs", "--network"]).output().exits(0).out();
    assert!(log(&client).contains("(web): on the network back; "), "{}", log(&client));
    assert!(
        log(&web).contains(&format!("to port 80 ({}): on the network back", client.id())),
        "{}",
        log(&web)
    );

    // A copy is on the network by its own name, and finds others where they were.
    _ = home.cellule(["fork", "-q", "client", "--name", "copy"]).output().exits(0);
    let copy = home.named("copy");
    assert_eq!(copy.sh(&get(&address)), "page\n");
    let listed = home.cellule(["network", "ls"]).output().exits(0).out();
    let row = listed.lines().find(|line| line.starts_with("back")).unwrap();
    assert!(["Web", "client", "copy"].iter().all(|name| row.contains(name)) && !row.contains("stranger"));
    _ = home.cellule(["network", "rm", "back"]).output().exits(125).says(&["3 sandboxes", "cellule stop"]);

    // What a killed one leaves behind is in nobody's way.
    let (supervisor, _) = web.pids();
    processes::kill(supervisor);
    let gone = client.exec(&[], &["nc", "-w", "20", &address, "80"]).output().exits(1);
    assert!(gone.err().contains("No route to host"), "{}", gone.err());
    assert_eq!(home.ps(["-a"]).len(), 4);
    assert!(!home.path().join("networks/back").join(web.id()).exists());
    for sandbox in [web, client, stranger, copy] {
        _ = sandbox.remove();
    }
    leftovers::assert_none(&home);
    assert_eq!(home.cellule(["network", "rm", "back"]).output().exits(0).out(), "back\n");
}
