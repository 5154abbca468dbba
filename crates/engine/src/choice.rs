//! Which engine a user asks for, and which one that is on this host.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Engine;
use crate::qemu::QemuEngine;

/// The engine that a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The best that this host can use. In this version that is always `qemu`.
    #[default]
    Auto,
    /// QEMU, emulating the processor.
    Qemu,
}

/// A name that stands for no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// It is planned, but not there.
    #[error("the engine `{engine}` is not available in this version")]
    NotInThisVersion {
        /// Its name.
        engine: &'static str,
    },
    /// No such engine.
    #[error("`{name}` is no engine; there are `auto` and `qemu`")]
    Unknown {
        /// What was given.
        name: String,
    },
}

impl EngineChoice {
    /// The engine itself. `qemu` names QEMU's program where it isn't to be searched for in `PATH`.
    pub fn engine(self, qemu: Option<PathBuf>) -> Box<dyn Engine> {
        match self {
            Self::Auto | Self::Qemu => Box::new(QemuEngine::new(qemu)),
        }
    }
}

impl FromStr for EngineChoice {
    type Err = ChoiceError;

    fn from_str(name: &str) -> Result<Self, ChoiceError> {
        match name {
            "auto" => Ok(Self::Auto),
            "qemu" => Ok(Self::Qemu),
            "kvm" => Err(ChoiceError::NotInThisVersion { engine: "kvm" }),
            _ => Err(ChoiceError::Unknown { name: name.to_owned() }),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Qemu => "qemu",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kvm_engine_is_refused_as_not_yet_there() {
        assert_eq!("kvm".parse::<EngineChoice>(), Err(ChoiceError::NotInThisVersion { engine: "kvm" }));
    }

    #[test]
    fn a_choice_reads_as_it_is_written() {
        for choice in [EngineChoice::Auto, EngineChoice::Qemu] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!(matches!("QEMU".parse::<EngineChoice>(), Err(ChoiceError::Unknown { .. })));
    }

    #[test]
    fn auto_is_an_engine_that_emulates_the_processor() {
        let engine = EngineChoice::Auto.engine(None);
        assert_eq!(engine.name(), "qemu");
        assert!(engine.emulates_cpu());
    }
}
