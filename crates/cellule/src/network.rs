//! What sandboxes may reach, and the ways into them.

pub use cellule_network::policy::{
    Action, Base, InvalidBase, Name, NameError, Policy, PolicyError, Protocol, Rule, RuleError,
};
pub use cellule_network::{Answer, Direction, Forward, ForwardStatus, HOST_NAME, Outcome, Record, Whom};
