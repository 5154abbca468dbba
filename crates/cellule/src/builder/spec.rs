//! What a sandbox is made of, by what is asked for and what its image says.

use std::path::PathBuf;

use cellule_boot::Bundle;
use cellule_image::Image;
use cellule_supervisor::{
    FORMAT, IdleRule, MainSpec, MainStdin, SandboxSpec, SecretValues, TemplateCache, WarmUp,
};

use super::{Builder, authorities, mib, millis, new_id, now_ns};
use crate::process::{self, UserSettings};
use crate::{Error, Signal, secrets};

impl Builder {
    /// What it is made of, and the values of its secrets, which are written down nowhere.
    pub(super) fn spec(
        &self,
        engine: &str,
        bundle: &Bundle,
        image: &Image,
    ) -> Result<(SandboxSpec, SecretValues), Error> {
        let config = &image.info.config;
        let main = self.main.as_ref();
        let user = UserSettings {
            entrypoint: main.and_then(|main| main.entrypoint.clone()),
            arguments: main.map(|main| main.arguments.clone()).unwrap_or_default(),
            user: self.user.clone(),
            working_dir: self.working_dir.clone(),
        };
        let process = process::compose(config, user)?;
        if main.is_some() && process.argv.is_empty() {
            return Err(Error::NoCommand);
        }
        let id = new_id()?;
        let hostname = self.hostname.clone().unwrap_or_else(|| id.to_string());
        let mut env = self.variables.over_image(&config.env, &hostname);
        let authorities = if self.network.trust_host_ca { authorities::of_host()? } else { String::new() };
        if !authorities.is_empty() {
            authorities::name_in(&mut env);
        }
        let now = now_ns();
        let stop_signal = match (self.stop_signal, config.stop_signal.as_deref()) {
            (Some(signal), _) => Some(signal.number()),
            // An image whose word for it means nothing gets the ordinary signal, as with Docker.
            (None, text) => text.and_then(|text| text.parse::<Signal>().ok()).map(Signal::number),
        };
        let main = main.map(|main| MainSpec {
            argv: process.argv,
            env: main_env(&env, main.terminal.is_some()),
            working_dir: process.working_dir.clone(),
            user: process.user.clone(),
            groups: self.groups.clone(),
            tty: main.terminal.is_some(),
            rows: main.terminal.map_or(0, |size| size.rows),
            columns: main.terminal.map_or(0, |size| size.columns),
            stdin: main.stdin.unwrap_or(MainStdin::None),
            timeout_ms: main.timeout.map(millis),
            rlimits: main.rlimits.iter().map(|limit| (limit.name.clone(), limit.soft, limit.hard)).collect(),
        });
        let mut spec = SandboxSpec {
            format: FORMAT,
            id,
            image: self.image.clone(),
            image_digest: image.info.id.to_string(),
            created_ns: now,
            engine: engine.to_owned(),
            engine_program: self.host.qemu().map(PathBuf::from),
            cpus: self.cpus.into(),
            memory_mib: mib(self.memory).into(),
            disk: self.disk,
            kernel: bundle.kernel_path.clone(),
            initramfs: bundle.initramfs_path.clone(),
            rootfs: image.rootfs.path.clone(),
            rootfs_digest: image.rootfs.digest.to_string(),
            hostname,
            read_only: self.read_only,
            tmpfs: self.tmpfs.clone(),
            env,
            working_dir: process.working_dir,
            user: process.user,
            main,
            stop_signal,
            auto_remove: self.remove,
            expires_ns: self
                .ttl
                .map(|ttl| now.saturating_add(i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX))),
            idle: self.idle.map(|(after, action)| IdleRule { after_ms: millis(after), action }),
            network: self.network.spec()?,
            authorities,
            labels: self.labels.clone(),
            templates: (!self.cold).then(|| TemplateCache {
                dir: self.host.templates(self.template_cache).dir().to_path_buf(),
                limit: self.template_cache,
                boot: bundle.id.clone(),
                warm_up: self.image_warm_up(config),
            }),
            saved: None,
        };
        let values = secrets::put(&self.network.secrets, &[], &mut spec)?;
        Ok((spec, values))
    }

    /// The warm-up with the image's own settings, if there is anything to do.
    fn image_warm_up(&self, config: &cellule_image::ImageConfig) -> WarmUp {
        if self.warm_up.is_empty() {
            return WarmUp::default();
        }
        WarmUp {
            env: config.env.clone(),
            working_dir: config.working_dir.clone(),
            user: config.user.clone(),
            ..self.warm_up.clone()
        }
    }
}

/// A terminal's programs ask what kind it is.
fn main_env(env: &[String], terminal: bool) -> Vec<String> {
    let mut env = env.to_vec();
    if terminal && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    env
}
