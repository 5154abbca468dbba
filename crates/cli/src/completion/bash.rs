//! Bash's side. It takes words apart at colons and equal signs (`COMP_WORDBREAKS`), and replaces only the part behind the
//! last of them. So what it registers puts the words together again, and cuts off the answers what bash keeps.

use std::ffi::OsString;
use std::io::{Error, Write};
use std::path::Path;

use clap_complete::env::EnvCompleter;

const SCRIPT: &str = r#"# Completion of cellule for bash: source it, or put it into ~/.local/share/bash-completion/completions/cellule
_cellule() {
    local line=${COMP_LINE:0:COMP_POINT} words=() part i cut
    # The parts of bash's that nothing stands between are one word. The last one may go on behind the cursor.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        part=${COMP_WORDS[i]}
        if ((i == 0)) || [[ $line == [[:space:]]* ]]; then
            line=${line#"${line%%[![:space:]]*}"}
            words+=("")
        fi
        ((i == COMP_CWORD)) && part=$line
        words[${#words[@]} - 1]+=$part
        line=${line#"$part"}
    done
    local word=${words[${#words[@]} - 1]}
    mapfile -t COMPREPLY < <(CELLULE_COMPLETE=bash "COMPLETER" -- "${words[@]}" 2>/dev/null)
    cut=$word
    [[ $COMP_WORDBREAKS == *:* ]] || cut=${cut//:/}
    [[ $COMP_WORDBREAKS == *=* ]] || cut=${cut//=/}
    if [[ $cut == *[:=]* ]]; then
        cut=${word%"${cut##*[:=]}"}
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/:=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -F _cellule cellule
"#;

/// Answers bash.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        _var: &str,
        _name: &str,
        _bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        buf.write_all(SCRIPT.replace("COMPLETER", completer).as_bytes())
    }

    /// The last word is the one to complete. One answer on each line.
    fn write_complete(
        &self,
        cmd: &mut clap::Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> Result<(), Error> {
        let last = args.len().saturating_sub(1);
        for candidate in clap_complete::engine::complete(cmd, args, last, current_dir)? {
            let value = candidate.get_value().to_string_lossy();
            if !value.contains(char::is_control) {
                writeln!(buf, "{value}")?;
            }
        }
        Ok(())
    }
}
