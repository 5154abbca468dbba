//! `cellule reference`: the page of all commands in docs, from the one definition of them. Hidden, as it is for whoever
//! works on the program. What it prints depends on that definition alone and not on the terminal.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use crate::failure::Failure;

const HEAD: &str = "# Commands\n\nMade by `make docs` from the definition that parses the commands.\n";

pub(crate) fn run() -> Result<ExitCode, Failure> {
    crate::answer(&page(super::Cellule::command()))?;
    Ok(ExitCode::SUCCESS)
}

/// The whole page: a list of the commands, then a section for each.
fn page(root: Command) -> String {
    let mut root = root.disable_help_subcommand(true);
    root.build();
    let mut commands = Vec::new();
    collect(&root, &mut commands);
    let mut text = HEAD.to_owned();
    text.push('\n');
    for command in &commands {
        let name = name(command);
        let about = command.get_about().map(|about| prose(&about.to_string())).unwrap_or_default();
        _ = writeln!(text, "- [{name}](#{}): {about}", name.replace(' ', "-"));
    }
    for command in commands {
        section(command, &mut text);
    }
    text
}

/// All that are not hidden, each before those below it.
fn collect<'a>(command: &'a Command, into: &mut Vec<&'a Command>) {
    into.push(command);
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, into);
    }
}

fn name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

fn section(command: &Command, text: &mut String) {
    _ = write!(text, "\n## {}\n\n", name(command));
    if let Some(about) = command.get_long_about().or(command.get_about()) {
        _ = write!(text, "{}\n\n", prose(&about.to_string()));
    }
    let usage = command.clone().render_usage().to_string();
    _ = write!(text, "```console\n{}\n```\n", usage.trim_start_matches("Usage: ").trim_end());
    let shown = |argument: &&Arg| !argument.is_hide_set() && !is_help(argument);
    list("Arguments", command.get_positionals().filter(shown).map(positional), text);
    let options = command.get_arguments().filter(|argument| !argument.is_positional()).filter(shown);
    list("Options", options.map(option), text);
    let below = command.get_subcommands().filter(|below| !below.is_hide_set()).map(|below| {
        let about = below.get_about().map(|about| prose(&about.to_string())).unwrap_or_default();
        format!("[{}](#{}): {about}", below.get_name(), name(below).replace(' ', "-"))
    });
    list("Commands", below, text);
}

fn list(title: &str, items: impl Iterator<Item = String>, text: &mut String) {
    for (number, item) in items.enumerate() {
        if number == 0 {
            _ = write!(text, "\n{title}:\n\n");
        }
        _ = writeln!(text, "- {item}");
    }
}

fn is_help(argument: &Arg) -> bool {
    matches!(
        argument.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

fn positional(argument: &Arg) -> String {
    let several = argument.get_num_args().is_some_and(|number| number.max_values() > 1);
    let dots = if several { "..." } else { "" };
    format!("`{}{dots}`{}", value_names(argument), described(argument))
}

fn option(argument: &Arg) -> String {
    let value = if argument.get_action().takes_values() { value_names(argument) } else { String::new() };
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let mut names: Vec<String> = short.into_iter().chain(long).collect();
    if let Some(last) = names.last_mut().filter(|_| !value.is_empty()) {
        _ = write!(last, " {value}");
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("{}{}", names.join(", "), described(argument))
}

fn value_names(argument: &Arg) -> String {
    match argument.get_value_names() {
        Some(names) => names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        None => argument.get_id().as_str().to_uppercase(),
    }
}

/// What an argument is for, its default, and the values that it takes.
fn described(argument: &Arg) -> String {
    let mut text = String::new();
    if let Some(help) = argument.get_long_help().or(argument.get_help()) {
        _ = write!(text, ": {}", prose(&help.to_string().split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    let mut notes = Vec::new();
    if matches!(argument.get_action(), ArgAction::Append | ArgAction::Count) && !argument.is_positional() {
        notes.push("may be repeated".to_owned());
    }
    if !argument.is_hide_default_value_set() && argument.get_action().takes_values() {
        let defaults: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if !defaults.is_empty() {
            notes.push(format!("default `{}`", defaults.join(" ")));
        }
    }
    if let Some(variable) = argument.get_env() {
        notes.push(format!("or the variable `{}`", variable.to_string_lossy()));
    }
    if !notes.is_empty() {
        _ = write!(text, " ({})", notes.join("; "));
    }
    let values = argument.get_possible_values();
    if argument.get_action().takes_values() && !argument.is_hide_possible_values_set() {
        for value in values.iter().filter(|value| !value.is_hide_set()) {
            let help =
                value.get_help().map(|help| format!(": {}", prose(&help.to_string()))).unwrap_or_default();
            _ = write!(text, "\n  - `{}`{help}", value.get_name());
        }
    }
    text
}

/// Text in Markdown: what is between backticks is as it is, and of the rest nothing is markup.
fn prose(text: &str) -> String {
    let mut code = false;
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        code ^= c == '`';
        if !code && matches!(c, '<' | '*' | '[' | ']' | '_') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser, ValueEnum};

    use super::*;

    /// Does <things>
    #[derive(Parser)]
    #[command(name = "thing", version, max_term_width = 20)]
    enum Thing {
        /// Make one, with a text that is far longer than a terminal is wide, which changes nothing
        ///
        /// A second paragraph with `*code*` and *stars*.
        Make {
            /// What it is made of
            #[arg(required = true, value_name = "PART")]
            parts: Vec<String>,
            /// Its colour
            #[arg(short, long, default_value = "red", value_enum)]
            colour: Colour,
            /// A variable
            #[arg(short, long, value_name = "NAME[=VALUE]")]
            env: Vec<String>,
            /// Not for users
            #[arg(long, hide = true)]
            secret: bool,
        },
        #[command(subcommand)]
        Box(Box),
        /// Not for users
        #[command(hide = true)]
        Hidden,
    }

    /// What is done with boxes
    #[derive(clap::Subcommand)]
    enum Box {
        /// Close it
        Close,
    }

    #[derive(Clone, ValueEnum)]
    enum Colour {
        /// As roses are
        Red,
        Blue,
    }

    #[test]
    fn the_page_tells_every_command_and_nothing_that_is_hidden() {
        let expected = "# Commands

Made by `make docs` from the definition that parses the commands.

- [thing](#thing): Does \\<things>
- [thing make](#thing-make): Make one, with a text that is far longer than a terminal is wide, which changes nothing
- [thing box](#thing-box): What is done with boxes
- [thing box close](#thing-box-close): Close it

## thing

Does \\<things>

```console
thing <COMMAND>
```

Commands:

- [make](#thing-make): Make one, with a text that is far longer than a terminal is wide, which changes nothing
- [box](#thing-box): What is done with boxes

## thing make

Make one, with a text that is far longer than a terminal is wide, which changes nothing

A second paragraph with `*code*` and \\*stars\\*.

```console
thing make [OPTIONS] <PART>...
```

Arguments:

- `PART...`: What it is made of

Options:

- `-c`, `--colour COLOUR`: Its colour (default `red`)
  - `red`: As roses are
  - `blue`
- `-e`, `--env NAME[=VALUE]`: A variable (may be repeated)

## thing box

What is done with boxes

```console
thing box <COMMAND>
```

Commands:

- [close](#thing-box-close): Close it

## thing box close

Close it

```console
thing box close
```
";
        assert_eq!(page(Thing::command()), expected);
    }
}
