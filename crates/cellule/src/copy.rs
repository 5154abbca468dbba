//! Sandboxes that go on from where one was saved: their specifications, and their directories before they are started.

use cellule_image::Image;
use cellule_supervisor::{SandboxDir, SandboxId, SandboxName, SandboxSpec, SecretValues};

use crate::builder::{new_id, now_ns};
use crate::{Error, Host, Sandbox};

/// What another sandbox is made of that goes on from where this one was saved. `of` is what people call that.
pub(crate) fn spec_of_copy(saved: &SandboxSpec, of: String) -> Result<SandboxSpec, Error> {
    let mut spec = SandboxSpec { saved: Some(of), templates: None, ..with_id(saved, new_id()?) };
    // The ports of the host are the first one's.
    for forward in &mut spec.network.ports {
        forward.host.set_port(0);
    }
    Ok(spec)
}

/// The same for a sandbox of its own: what tells one from others is new, and its time begins now.
pub(crate) fn with_id(like: &SandboxSpec, id: SandboxId) -> SandboxSpec {
    let now = now_ns();
    let mut spec = SandboxSpec { created_ns: now, ..like.clone() };
    spec.expires_ns = like.expires_ns.map(|expires| {
        let lifetime = expires.saturating_sub(like.created_ns);
        now.saturating_add(lifetime)
    });
    if like.hostname == like.id.as_str() {
        spec.hostname = id.to_string();
        let (old, new) = (hostname_variable(&like.id), hostname_variable(&id));
        let main = spec.main.iter_mut().flat_map(|main| &mut main.env);
        for variable in spec.env.iter_mut().chain(main).filter(|variable| **variable == old) {
            variable.clone_from(&new);
        }
    }
    spec.id = id;
    spec
}

fn hostname_variable(id: &SandboxId) -> String {
    format!("HOSTNAME={id}")
}

/// A sandbox that was made and not started. Dropped, nothing is left of it.
#[derive(Debug)]
pub(crate) struct Unstarted {
    pub(crate) spec: SandboxSpec,
    pub(crate) name: Option<SandboxName>,
    pub(crate) dir: SandboxDir,
}

impl Unstarted {
    pub(crate) fn make(host: &Host, spec: SandboxSpec, name: Option<SandboxName>) -> Result<Self, Error> {
        let dir = host.sandboxes()?.create(&spec, name.as_ref())?.only_if_started();
        Ok(Self { spec, name, dir })
    }

    /// Starts its machine; `image` is held until that holds it itself.
    pub(crate) async fn launch(
        self,
        host: &Host,
        secrets: SecretValues,
        image: Option<Image>,
    ) -> Result<Sandbox, Error> {
        let Self { spec, name, dir } = self;
        Sandbox::launch(host.clone(), spec, name, dir, secrets, image).await
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn document() -> serde_json::Value {
        serde_json::json!({
            "format": cellule_supervisor::FORMAT, "id": "0123456789ab", "image": "base", "image_digest": "sha256:1",
            "created_ns": 1, "engine": "qemu", "engine_program": null, "cpus": 1, "memory_mib": 512, "disk": null,
            "kernel": "/k", "initramfs": "/i", "rootfs": "/r", "rootfs_digest": "sha256:2", "hostname": "h",
            "read_only": false, "tmpfs": [], "env": [], "working_dir": "/", "user": "", "main": null,
            "stop_signal": null, "auto_remove": false, "expires_ns": null, "idle": null, "labels": {}, "authorities": "",
            "network": {
                "policy": { "base": "public", "rules": [] }, "ports": [{ "host": "127.0.0.1:80", "guest": 80, "protocol": "tcp" }],
                "exposed": {}, "name_servers": [], "search": [], "hosts_file": false, "bandwidth": null,
                "connection_rate": null, "secrets": [], "networks": [],
            },
            "templates": null, "saved": null,
        })
    }

    pub(crate) fn spec() -> SandboxSpec {
        SandboxSpec::parse(&serde_json::to_vec(&document()).unwrap()).unwrap()
    }

    #[test]
    fn a_copy_is_a_sandbox_of_its_own() {
        let mut first = spec();
        first.hostname = first.id.to_string();
        first.env = vec!["A=1".to_owned(), format!("HOSTNAME={}", first.id)];
        first.expires_ns = Some(first.created_ns + 1000);
        let copy = spec_of_copy(&first, "a fork of web".to_owned()).unwrap();
        assert_ne!(copy.id, first.id);
        assert_eq!(copy.hostname, copy.id.to_string());
        assert_eq!(copy.env, ["A=1".to_owned(), format!("HOSTNAME={}", copy.id)]);
        assert_eq!(copy.expires_ns, Some(copy.created_ns + 1000));
        assert!(copy.created_ns > first.created_ns);
        assert_eq!(copy.rootfs_digest, first.rootfs_digest);
        assert_eq!(copy.network.ports[0].host.to_string(), "127.0.0.1:0");

        first.hostname = "mine".to_owned();
        first.expires_ns = None;
        let copy = spec_of_copy(&first, String::new()).unwrap();
        assert_eq!((copy.hostname.as_str(), copy.expires_ns), ("mine", None));
    }
}
