//! Two network namespaces of a test's own: one that sandboxes are run in, and one with servers, as far from it as any on the internet.
//!
//! ```text
//!   sandboxes, 11.22.33.1 ── veth ── 11.22.33.2, nginx and iperf3      the same with 2606:1::/64
//! ```
//! Nothing leads out of them. They end with the processes in them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Call, Home, binary};

/// Where the server is, as the namespace's file of hosts has it for `web.test` and `other.test`.
pub const FAR_V4: &str = "11.22.33.2";
/// The same of IPv6.
pub const FAR_V6: &str = "2606:1::2";

/// Makes both, and says when they are there. $1 is a directory with `hosts` and nginx's configuration.
const MAKE: &str = r#"
set -e
mount --bind "$1/hosts" /etc/hosts
echo '0 0' > /proc/sys/net/ipv4/ping_group_range
ip link set lo up
unshare --net sh -c '
    ip link set lo up; echo "0 0" > /proc/sys/net/ipv4/ping_group_range; touch "$1/far"
    for _ in $(seq 400); do ip link show far >/dev/null 2>&1 && break; sleep 0.05; done
    ip address add 11.22.33.2/24 dev far; ip address add 2606:1::2/64 dev far nodad; ip link set far up
    iperf3 -s >/dev/null &
    exec "$2" -e stderr -c "$1/nginx.conf" >/dev/null' sh "$1" "$2" &
far=$!
for _ in $(seq 400); do [ ! -e "$1/far" ] || break; sleep 0.05; done
ip link add near type veth peer name far netns $far
ip address add 11.22.33.1/24 dev near; ip address add 2606:1::1/64 dev near nodad; ip link set near up
for server in 11.22.33.2/80 2606:1::2/80 11.22.33.2/5201; do
    for _ in $(seq 400); do (exec 3<> "/dev/tcp/$server") 2>/dev/null && break; sleep 0.05; done
done
echo there
exec cat
"#;

/// Both namespaces.
#[derive(Debug)]
pub struct Apart {
    holder: Child,
    dir: TempDir,
}

impl Apart {
    /// Makes them; the server has this certificate and key, as PEM, and these locations in nginx's words.
    pub fn new(certificate: &str, key: &str, locations: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let far = ["web.test", "other.test"];
        let far = far.map(|name| format!("{FAR_V4} {name}\n{FAR_V6} {name}\n")).concat();
        write("hosts", &format!("127.0.0.1 localhost\n{far}10.1.2.3 inside.test\n11.22.33.1 own.test\n"));
        write("certificate.pem", certificate);
        write("key.pem", key);
        let listen = |port: &str| format!("listen {FAR_V4}:{port}; listen [{FAR_V6}]:{port};");
        write(
            "nginx.conf",
            &format!(
                "user root root; daemon off; master_process off; pid {path}/pid; error_log {path}/error.log; events {{ }}\n\
                 http {{ access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
                 fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;\n\
                 server {{ {} {} {locations} }}\n\
                 ssl_certificate {path}/certificate.pem; ssl_certificate_key {path}/key.pem; }}\n",
                listen("80"),
                listen("443 ssl http2"),
            ),
        );
        let nginx = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        // Its input ends with this process, however that ends, and so does what it started.
        let mut holder = Command::new("unshare")
            .args([
                "--map-root-user",
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                // Other shells have no /dev/tcp.
                "bash",
                "-c",
                MAKE,
            ])
            .arg("bash")
            .arg(dir.path())
            .arg(nginx)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line != "there\n" {
            _ = holder.kill();
            let mut said = String::new();
            _ = holder.stderr.take().unwrap().read_to_string(&mut said);
            panic!("there are no namespaces: {said}");
        }
        Self { holder, dir }
    }

    /// The certificate's file, for who trusts it.
    pub fn certificate(&self) -> String {
        self.dir.path().join("certificate.pem").to_str().unwrap().to_owned()
    }

    /// A call of `cellule` in the first of them.
    pub fn cellule(&self, home: &Home, words: &[&str]) -> Call {
        let holder = format!("--target={}", self.holder.id());
        let binary = binary();
        let enter =
            [&holder, "--user", "--preserve-credentials", "--mount", "--net", binary.to_str().unwrap()];
        home.program(Path::new("/usr/bin/nsenter"), enter.iter().chain(words))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        _ = self.holder.kill();
        _ = self.holder.wait();
    }
}
