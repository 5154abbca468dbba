//! The options that describe a sandbox's network, shared by the commands that make one.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use cellule::network::{Action, Base, NetworkChanges, Policy, Rule};
use cellule::{Builder, InvalidName, NetworkName};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;

use crate::completion;
use crate::config::NetworkDefaults;
use crate::failure::Failure;
use crate::ports::{Forwards, parse_ports};
use crate::quantity;
use crate::secret_options::SecretOptions;

/// What the programs of a sandbox may reach.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PolicyOptions {
    /// What programs may reach where no rule says: none, public (the internet without this host's own networks) or all.
    /// Without it, --allow refuses the rest, and else it is the configuration's, or public
    #[arg(long, value_name = "WHAT", value_parser = base())]
    network: Option<Base>,
    #[command(flatten)]
    rules: RuleOptions,
}

impl PolicyOptions {
    /// Whether anything is said.
    pub(crate) fn is_given(&self) -> bool {
        self.network.is_some() || !self.rules.rules.is_empty()
    }

    /// What is so where no rule matches, if it is said, and the rules: those of the configuration behind.
    fn with(&self, defaults: &NetworkDefaults) -> (Option<Base>, Vec<Rule>) {
        let own = &self.rules.rules;
        // Who allows something here refuses the rest, whatever the file has for it.
        let allows = own.iter().any(|rule| rule.action() == Action::Allow);
        let base = self.network.or(if allows { None } else { defaults.network });
        (base, own.iter().chain(&defaults.rules).cloned().collect())
    }

    /// All that programs may reach.
    ///
    /// # Errors
    /// There are too many rules.
    pub(crate) fn policy(&self, defaults: &NetworkDefaults) -> Result<Policy, Failure> {
        let (base, rules) = self.with(defaults);
        Policy::new(base, rules).map_err(|error| Failure::because("the network's rules cannot be", &error))
    }
}

/// How a sandbox reaches others, and they it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = Self::HEADING)]
pub(crate) struct NetworkOptions {
    /// What programs may reach where no rule says: none, public (the internet without this host's own networks) or all. Without
    /// it, --allow refuses the rest, and else it is the configuration's, or public. Or the name of a network, for each that the
    /// sandbox is to be on: those on one reach one another by name
    #[arg(long, value_name = "WHAT|NAME", value_parser = parse_network, add = completion::network())]
    network: Vec<NetworkWord>,
    #[command(flatten)]
    rules: RuleOptions,
    /// Let a port of this host lead to one of the sandbox, such as 8080:80, 127.0.0.1:0:80 (any that is free),
    /// `[::1]:8000-8010:8000-8010` or 5353:53/udp; without an address it is this host's loopback
    #[arg(short, long, value_name = "[IP:]HOST:GUEST[/tcp|udp]", value_parser = parse_ports)]
    publish: Vec<Forwards>,
    /// Let programs reach a port of this host's loopback, as host.cellule.internal
    #[arg(long, value_name = "PORT[:GUESTPORT]", value_parser = parse_exposed)]
    expose_host: Vec<(u16, u16)>,
    /// Ask this name server in place of those that this host asks
    #[arg(long, value_name = "IP[:PORT]", value_parser = parse_server)]
    dns: Vec<SocketAddr>,
    /// Look for short names in this domain; only with --dns, else in those that this host looks in
    #[arg(long, value_name = "DOMAIN", requires = "dns")]
    dns_search: Vec<String>,
    /// Let programs look up the names in this host's /etc/hosts
    #[arg(long)]
    host_names: bool,
    /// The most that programs may send, and get, each second, in bytes: 10m is ten mebibytes
    #[arg(long, value_name = "SIZE", value_parser = parse_bandwidth)]
    bandwidth: Option<u64>,
    /// The most connections that programs may begin each second
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    connection_rate: Option<u64>,
    #[command(flatten)]
    secrets: SecretOptions,
}

impl NetworkOptions {
    /// What stands above them in the help.
    pub(crate) const HEADING: &'static str = "Network";

    /// Puts what was asked into the description of a sandbox, and what the configuration says where nothing was.
    ///
    /// # Errors
    /// A secret is none.
    pub(crate) fn apply(&self, mut builder: Builder, defaults: &NetworkDefaults) -> Result<Builder, Failure> {
        let (base, rules) = self.policy()?.with(defaults);
        if let Some(base) = base {
            builder = builder.network(base);
        }
        builder = rules.into_iter().fold(builder, Builder::rule);
        builder =
            self.publish.iter().flat_map(|forwards| &forwards.0).fold(builder, |b, forward| b.port(*forward));
        builder = self.exposed()?.into_iter().fold(builder, |b, (guest, port)| b.expose_host(port, guest));
        let (dns, search) = if self.dns.is_empty() {
            (&defaults.dns, &defaults.dns_search)
        } else {
            (&self.dns, &self.dns_search)
        };
        builder = dns.iter().fold(builder, |b, server| b.name_server(*server));
        builder = search.iter().fold(builder, Builder::search_domain);
        if let Some(bytes) = self.bandwidth.or(defaults.bandwidth) {
            builder = builder.bandwidth(bytes);
        }
        if let Some(connections) = self.connection_rate.or(defaults.connection_rate) {
            builder = builder.connection_rate(connections);
        }
        builder = self.joined().fold(builder, Builder::join);
        builder = self.secrets.all()?.into_iter().fold(builder, Builder::secret);
        Ok(builder.hosts_file(self.host_names))
    }

    /// What of a snapshot's network is another. What the configuration says of what programs may reach counts where
    /// something is said of it here.
    ///
    /// # Errors
    /// There are too many rules, or a secret is none.
    pub(crate) fn changes(&self, defaults: &NetworkDefaults) -> Result<NetworkChanges, Failure> {
        let said = self.policy()?;
        let policy = said.is_given().then(|| said.policy(defaults)).transpose()?;
        let ports = self.publish.iter().flat_map(|forwards| forwards.0.iter().copied());
        let exposed = self.exposed()?;
        Ok(NetworkChanges {
            policy,
            ports: (!self.publish.is_empty()).then(|| ports.collect()),
            exposed: (!exposed.is_empty()).then_some(exposed),
            name_servers: (!self.dns.is_empty()).then(|| (self.dns.clone(), self.dns_search.clone())),
            hosts_file: self.host_names.then_some(true),
            bandwidth: self.bandwidth,
            connection_rate: self.connection_rate,
            secrets: self.secrets.all()?,
            networks: self.joined().collect(),
        })
    }

    /// The host's port for each that programs have for it.
    fn exposed(&self) -> Result<BTreeMap<u16, u16>, Failure> {
        let mut exposed = BTreeMap::new();
        for (port, guest) in &self.expose_host {
            if let Some(other) = exposed.insert(*guest, *port).filter(|other| other != port) {
                let message =
                    format!("--expose-host: programs cannot have both {other} and {port} at port {guest}");
                return Err(
                    Failure::new(message).hint(format!("give one of them another number: {port}:PORT"))
                );
            }
        }
        Ok(exposed)
    }

    /// What is said of what programs may reach.
    fn policy(&self) -> Result<PolicyOptions, Failure> {
        let mut bases = self.network.iter().filter_map(|word| match word {
            NetworkWord::Base(base) => Some(*base),
            NetworkWord::Named(_) => None,
        });
        let network = bases.next();
        if let (Some(first), Some(second)) = (network, bases.next()) {
            return Err(Failure::new(format!(
                "--network {first} and --network {second} exclude one another"
            )));
        }
        Ok(PolicyOptions { network, rules: self.rules.clone() })
    }

    /// The networks that the sandbox is to be on.
    fn joined(&self) -> impl Iterator<Item = NetworkName> {
        self.network.iter().filter_map(|word| match word {
            NetworkWord::Base(_) => None,
            NetworkWord::Named(name) => Some(name.clone()),
        })
    }
}

/// A word of `--network`.
#[derive(Debug, Clone)]
enum NetworkWord {
    Base(Base),
    Named(NetworkName),
}

fn parse_network(text: &str) -> Result<NetworkWord, String> {
    match text.parse::<Base>() {
        Ok(base) => Ok(NetworkWord::Base(base)),
        Err(_) => text.parse().map(NetworkWord::Named).map_err(|error: InvalidName| error.to_string()),
    }
}

/// Rules in the order in which they were given: clap itself keeps the order of each option alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleOptions {
    rules: Vec<Rule>,
}

/// The bases, so that a shell can complete them.
fn base() -> impl TypedValueParser<Value = Base> {
    PossibleValuesParser::new(["none", "public", "all"]).try_map(|text| text.parse::<Base>())
}

/// The target of a rule, checked where it was typed.
fn parse_target(text: &str) -> Result<String, String> {
    Rule::new(Action::Allow, text).map(|_| text.to_owned()).map_err(|error| chain(&error))
}

/// An error and what is below it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl clap::Args for RuleOptions {
    fn augment_args(command: clap::Command) -> clap::Command {
        let rule = |name: &'static str, help: &'static str| {
            clap::Arg::new(name)
                .long(name)
                .value_name("HOST[:PORTS][/PROTOCOL]")
                .help(help)
                .action(clap::ArgAction::Append)
                .value_parser(parse_target)
        };
        command
            .arg(rule(
                "allow",
                "Let programs reach this: example.com, *.example.com (all below it), 10.0.0.0/8, [2001:db8::1]:443, \
                 *:80,443. The first rule of --allow and --deny that matches decides",
            ))
            .arg(rule("deny", "Refuse programs this"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for RuleOptions {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let mut rules = Vec::new();
        for (name, action) in [("allow", Action::Allow), ("deny", Action::Deny)] {
            let given = matches.value_source(name) == Some(ValueSource::CommandLine);
            let (Some(targets), Some(places)) = (matches.get_many::<String>(name), matches.indices_of(name))
            else {
                continue;
            };
            for (target, place) in targets.zip(places).filter(|_| given) {
                let rule = Rule::new(action, target).map_err(|error| {
                    clap::Error::raw(clap::error::ErrorKind::ValueValidation, chain(&error))
                })?;
                rules.push((place, rule));
            }
        }
        rules.sort_by_key(|(place, _)| *place);
        Ok(Self { rules: rules.into_iter().map(|(_, rule)| rule).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn parse_exposed(text: &str) -> Result<(u16, u16), String> {
    let (port, guest) = text.split_once(':').unwrap_or((text, text));
    let parse = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    parse(port).zip(parse(guest)).ok_or_else(|| "write it as 5432 or 5432:15432".to_owned())
}

/// A name server's address, with port 53 where none is given.
pub(crate) fn parse_server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    address
        .or_else(|_| text.parse())
        .map_err(|_| "write it as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53".to_owned())
}

/// A size that something can pass at.
pub(crate) fn parse_bandwidth(text: &str) -> Result<u64, String> {
    match quantity::parse_size(text)? {
        0 => Err("nothing would ever pass; --network none keeps programs from the network".to_owned()),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        network: NetworkOptions,
    }

    /// The policy of these words below a file's, as text.
    fn policy(words: &[&str], defaults: &NetworkDefaults) -> Vec<String> {
        let options = Program::try_parse_from([&["x"], words].concat()).unwrap().network;
        let policy = options.policy().unwrap().policy(defaults).unwrap();
        let rules = policy.rules().iter().map(ToString::to_string);
        rules.chain([policy.base().to_string()]).collect()
    }

    #[test]
    fn rules_keep_the_order_in_which_they_were_typed() {
        let words =
            ["--deny", "a.example", "--allow", "*.example", "--deny", "10.0.0.0/8", "--allow", "*:443"];
        let rules = policy(&words, &NetworkDefaults::default());
        assert_eq!(rules, ["deny a.example", "allow *.example", "deny 10.0.0.0/8", "allow *:443", "none"]);
        let error = Program::try_parse_from(["x", "--allow", "10.0.0.1/8"]).unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/8"), "{error}");
    }

    #[test]
    fn a_network_is_what_may_be_reached_once_and_a_name_any_number_of_times() {
        let options = |words: &[&str]| Program::try_parse_from([&["x"], words].concat()).map(|x| x.network);
        let two = options(&["--network=back", "--network=none", "--network=front"]).unwrap();
        assert_eq!(two.joined().map(|name| name.to_string()).collect::<Vec<_>>(), ["back", "front"]);
        assert_eq!(two.policy().unwrap().network, Some(Base::None));
        assert!(options(&["--network=none", "--network=all"]).unwrap().policy().is_err());
        let error = options(&["--network=Back_End"]).unwrap_err().to_string();
        assert!(error.contains("a-z 0-9 -"), "{error}");
    }

    #[test]
    fn the_files_rules_come_last_and_its_network_opens_nothing_beside_what_is_allowed_here() {
        let defaults = NetworkDefaults {
            network: Some(Base::All),
            rules: vec!["deny 10.0.0.0/8".parse().unwrap()],
            ..NetworkDefaults::default()
        };
        assert_eq!(policy(&[], &defaults), ["deny 10.0.0.0/8", "all"]);
        assert_eq!(policy(&["--network", "public"], &defaults), ["deny 10.0.0.0/8", "public"]);
        assert_eq!(policy(&["--deny", "a.b"], &defaults), ["deny a.b", "deny 10.0.0.0/8", "all"]);
        assert_eq!(policy(&["--allow", "a.b"], &defaults), ["allow a.b", "deny 10.0.0.0/8", "none"]);
    }

    #[test]
    fn of_a_snapshots_network_only_what_is_said_is_another() {
        let changes = |words: &[&str]| {
            let options = Program::try_parse_from([&["x"], words].concat()).unwrap().network;
            options.changes(&NetworkDefaults::default()).unwrap()
        };
        assert_eq!(changes(&[]), NetworkChanges::default());
        let said = changes(&["--network", "none", "--expose-host", "5432:15432"]);
        assert_eq!(said.policy.map(|policy| policy.base()), Some(Base::None));
        assert_eq!(said.exposed, Some(BTreeMap::from([(15432, 5432)])));
        assert_eq!(said.ports, None);
    }

    #[test]
    fn two_services_of_the_host_have_two_ports() {
        let exposed = |words: &[&str]| {
            let words = words.iter().flat_map(|word| ["--expose-host", *word]);
            Program::try_parse_from(["x"].into_iter().chain(words)).unwrap().network.exposed()
        };
        assert_eq!(exposed(&["80", "8080", "80"]).unwrap(), BTreeMap::from([(80, 80), (8080, 8080)]));
        assert!(exposed(&["80", "8080:80"]).is_err());
    }

    #[test]
    fn a_rate_at_which_nothing_passes_is_refused() {
        assert_eq!(parse_bandwidth("1m"), Ok(1 << 20));
        assert!(parse_bandwidth("0").is_err());
    }
}
