//! `cellule completion`: what a shell needs to complete the words of this program.

use std::process::ExitCode;

use crate::completion;
use crate::failure::Failure;

/// Print what makes a shell complete commands, options, and names of sandboxes and images
///
/// For bash: `cellule completion bash > ~/.local/share/bash-completion/completions/cellule`
///
/// For zsh: `cellule completion zsh > DIR/_cellule`, where DIR is one of `$fpath`
///
/// For fish: `cellule completion fish > ~/.config/fish/completions/cellule.fish`
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let shell = match arguments.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    crate::answer(&completion::registration(shell)?)?;
    Ok(ExitCode::SUCCESS)
}
