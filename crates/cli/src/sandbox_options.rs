//! The options that describe a sandbox, shared by the commands that make one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cellule::{
    Builder, EngineChoice, Host, IdleAction, Policy, Progress, Rlimit, SandboxName, Signal, Stdin,
    TerminalSize,
};

use crate::config::Config;
use crate::failure::Failure;
use crate::network_options::NetworkOptions;
use crate::pool::PoolDocument;
use crate::report::Report;
use crate::store::GetOptions;
use crate::watch::Watch;
use crate::{completion, environment, library_failure, quantity};

/// What a sandbox is made from and how its main program runs.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(crate) struct SandboxOptions {
    /// The image; the command and its arguments follow it. An image is a registry's reference, oci:DIR[:TAG],
    /// docker-archive:FILE, a path of a root filesystem's tar or directory, or the built-in `base`
    #[arg(value_name = "IMAGE", trailing_var_arg = true, add = completion::image())]
    words: Vec<String>,
    /// Set a variable; NAME alone takes the value that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one on a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Work in this directory; it is made if it is missing
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user and group, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Give the command one more group, a name or a number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Run this instead of the image's entrypoint; empty takes it away
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Pass standard input on to the command
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Name the sandbox; no other can have that name
    #[arg(long)]
    name: Option<String>,
    /// What the guest calls itself; by default its id
    #[arg(long)]
    hostname: Option<String>,
    /// Virtual processors
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    cpus: u16,
    /// Memory of the machine
    #[arg(short, long, default_value = "512m", value_name = "SIZE", value_parser = quantity::parse_size)]
    memory: u64,
    /// Give the root filesystem a scratch disk in place of memory; it takes of this host's disk what was ever written to it
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_size)]
    disk: Option<u64>,
    /// End the command after this time, with exit code 124
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Limit a resource of the command's, such as nofile=1024 or nproc=64:128
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_rlimit)]
    ulimit: Vec<Rlimit>,
    /// What executes the machine: auto or qemu
    #[arg(long, default_value = "auto")]
    engine: EngineChoice,
    /// Make the root filesystem read-only; /tmp, /run and /dev/shm stay writable
    #[arg(long)]
    read_only: bool,
    /// Mount an empty filesystem in memory, with options such as size=64m,mode=1777
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Attach a label
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = label)]
    label: Vec<(String, String)>,
    /// The signal that asks the command to stop; by default the image's, else SIGTERM
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<Signal>,
    /// Remove the sandbox after this time, whatever it does then
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    ttl: Option<Duration>,
    /// Stop the sandbox after this long without use: no command but the main one, no file operation, nobody attached
    #[arg(long, value_name = "TIME", value_parser = quantity::parse_duration)]
    idle_timeout: Option<Duration>,
    /// What to do then
    #[arg(long, default_value = "stop", value_enum, requires = "idle_timeout")]
    idle_action: IdleActionName,
    /// Boot the machine at each start; otherwise it goes on from where the first one like it had booted
    #[arg(long)]
    cold: bool,
    /// What all templates together may take on disk; those not used for longest make room [default: the configuration's,
    /// else 4g]
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_size)]
    template_cache: Option<u64>,
    /// Run this in the image's shell before the machine is saved as a template, with the image's own settings; what it
    /// leaves is in each sandbox with the same warm-up
    #[arg(long, value_name = "COMMAND", conflicts_with = "cold")]
    warmup: Vec<String>,
    /// Start this after those, and leave it running in the template
    #[arg(long, value_name = "COMMAND", conflicts_with = "cold")]
    warmup_detach: Vec<String>,
    /// Save the template only when somebody listens on this port in the guest
    #[arg(long, value_name = "PORT", conflicts_with = "cold")]
    ready_port: Vec<u16>,
    /// Save the template only when this has ended with code 0; it is tried again until it does
    #[arg(long, value_name = "COMMAND", conflicts_with = "cold")]
    ready_cmd: Vec<String>,
    /// When to ask the registry: always, missing or never
    #[arg(long, default_value = "missing", value_name = "WHEN", value_parser = parse_policy)]
    pull: Policy,
    #[command(flatten)]
    pub(crate) network: NetworkOptions,
    /// Let programs trust the certificate authorities that this host's administrator added, and those of a file that the
    /// variable `NODE_EXTRA_CA_CERTS` names
    #[arg(long, help_heading = NetworkOptions::HEADING)]
    trust_host_ca: bool,
    #[command(flatten)]
    get: GetOptions,
    /// Say nothing of our own unless something fails
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Tell what is done and how long it takes
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum IdleActionName {
    /// End it, as `cellule stop` does
    Stop,
    /// Stop its processors; the next use lets it go on
    Pause,
}

fn parse_policy(text: &str) -> Result<Policy, String> {
    match text {
        "always" => Ok(Policy::Always),
        "missing" => Ok(Policy::Missing),
        "never" => Ok(Policy::Never),
        _ => Err("it is one of always, missing and never".to_owned()),
    }
}

/// `NAME=SOFT[:HARD]`; -1 or `unlimited` is no limit, and a hard one that is not given is the soft one.
pub(crate) fn parse_rlimit(text: &str) -> Result<Rlimit, String> {
    let shape = || "write it as nofile=1024 or nproc=64:128".to_owned();
    let (name, values) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(shape)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let limit = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        // The largest number is how the wire says that there is none.
        number => number.parse().ok().filter(|number| *number < u64::MAX).map(Some).ok_or_else(shape),
    };
    let (soft, hard) = (limit(soft)?, limit(hard)?);
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err("the soft limit is above the hard one".to_owned());
    }
    Ok(Rlimit { name: name.to_owned(), soft, hard })
}

impl SandboxOptions {
    /// The builder that does what was asked. Refuses what cannot be, before anything is made or fetched.
    ///
    /// `attached` is whether a client stays with the command from its start to its end. With an image of a pool's, all words
    /// are the command.
    pub(crate) fn builder(
        &self,
        host: &Host,
        pool: Option<&PoolDocument>,
        attached: bool,
        terminal: TerminalSize,
        watch: &Arc<Watch>,
        report: &Arc<Report>,
    ) -> Result<Builder, Failure> {
        let (image, arguments) = match (pool, self.words.split_first()) {
            (Some(pool), _) => (&pool.image, self.words.as_slice()),
            (None, Some(words)) => words,
            (None, None) => {
                return Err(
                    Failure::new("no image is given").hint("put it behind the options: base is built in")
                );
            }
        };
        if let Some(dir) = self.workdir.as_deref().filter(|dir| !dir.is_empty() && !dir.starts_with('/')) {
            return Err(Failure::new(format!("--workdir {dir}: it must begin with a slash")));
        }
        let config = Config::read()?;
        let template_cache = self.template_cache.unwrap_or_else(|| config.template_cache());
        let variables = environment::read(&self.env_file, &self.env)?;
        let stdin = match (self.interactive, attached) {
            (false, _) => Stdin::None,
            (true, true) => Stdin::Once,
            (true, false) => Stdin::Open,
        };
        let (on_boot, on_step) = (Arc::clone(watch), Arc::clone(report));
        let mut builder = host
            .sandbox(image)
            .main(arguments)
            .stdin(stdin)
            .variables(variables)
            .engine(self.engine)
            .read_only(self.read_only)
            .trust_host_ca(self.trust_host_ca)
            .cold(self.cold)
            .template_cache(template_cache)
            .pull(self.pull)
            .image_options(self.get.options(watch))
            .progress(move |progress| match progress {
                Progress::Boot(progress) => on_boot.boot(*progress),
                Progress::Step { name, took } => on_step.tell(name, *took),
                _ => {}
            });
        if self.tty {
            builder = builder.terminal(terminal);
        }
        if let Some(entrypoint) = &self.entrypoint {
            builder = builder.entrypoint(entrypoint);
        }
        if let Some(limit) = self.timeout {
            builder = builder.timeout(limit);
        }
        if let Some(user) = &self.user {
            builder = builder.user(user);
        }
        if let Some(dir) = &self.workdir {
            builder = builder.working_dir(dir);
        }
        if let Some(signal) = self.stop_signal {
            builder = builder.stop_signal(signal);
        }
        if let Some(ttl) = self.ttl {
            builder = builder.ttl(ttl);
        }
        if let Some(after) = self.idle_timeout {
            let action = match self.idle_action {
                IdleActionName::Stop => IdleAction::Stop,
                IdleActionName::Pause => IdleAction::Pause,
            };
            builder = builder.idle_timeout(after, action);
        }
        builder = self.network.apply(builder, &config.network)?;
        builder = self.warmup.iter().fold(builder, Builder::warm_up);
        builder = self.warmup_detach.iter().fold(builder, Builder::warm_up_detached);
        builder = self.ready_port.iter().fold(builder, |builder, port| builder.ready_port(*port));
        builder = self.ready_cmd.iter().fold(builder, Builder::ready_command);
        builder = self.group_add.iter().fold(builder, Builder::group);
        builder = self.ulimit.iter().fold(builder, |builder, limit| builder.rlimit(limit.clone()));
        builder = self.label.iter().fold(builder, |builder, (name, value)| builder.label(name, value));
        self.checked(builder, pool).map_err(|error| library_failure::of(&error))
    }

    /// The name that the sandbox is to have; one that is none was refused before.
    pub(crate) fn name(&self) -> Option<SandboxName> {
        self.name.as_deref().and_then(|name| name.parse().ok())
    }

    /// What the library checks as it takes it.
    fn checked(&self, builder: Builder, pool: Option<&PoolDocument>) -> Result<Builder, cellule::Error> {
        let mut builder = match pool {
            Some(pool) => pool.warm(builder.cpus(pool.cpus)?.memory(pool.memory)?.engine(pool.engine())),
            None => builder.cpus(self.cpus)?.memory(self.memory)?,
        };
        if let Some(bytes) = pool.map_or(self.disk, |pool| pool.disk) {
            builder = builder.disk(bytes)?;
        }
        if let Some(name) = &self.name {
            builder = builder.name(name)?;
        }
        if let Some(name) = &self.hostname {
            builder = builder.hostname(name)?;
        }
        for text in &self.tmpfs {
            let (path, options) = text.split_once(':').unwrap_or((text, ""));
            builder = builder.tmpfs(path, options)?;
        }
        Ok(builder)
    }
}

/// A label's name, and its value, which may be empty.
pub(crate) fn label(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err("a label needs a name");
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_a_soft_and_a_hard_value() {
        let limit = |name: &str, soft, hard| Rlimit { name: name.to_owned(), soft, hard };
        assert_eq!(parse_rlimit("nofile=1024"), Ok(limit("nofile", Some(1024), Some(1024))));
        assert_eq!(parse_rlimit("nproc=64:128"), Ok(limit("nproc", Some(64), Some(128))));
        assert_eq!(parse_rlimit("core=0:-1"), Ok(limit("core", Some(0), None)));
        for bad in
            ["nofile", "=1", "nofile=x", "nofile=2:1", "core=unlimited:5", "nofile=18446744073709551615"]
        {
            assert!(parse_rlimit(bad).is_err(), "{bad}");
        }
    }
}
