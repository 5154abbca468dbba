use std::os::unix::fs::PermissionsExt as _;
use std::process::Command as Process;

use super::*;

#[derive(clap::Parser)]
#[command(name = "cellule")]
struct Words {
    #[arg(long)]
    format: Option<crate::listing::Format>,
    #[arg(required = true, add = ArgValueCandidates::new(two), trailing_var_arg = true)]
    words: Vec<String>,
}

fn two() -> Vec<CompletionCandidate> {
    ["web:1", "work"].map(CompletionCandidate::new).into()
}

/// What bash is answered for these words, the last of which is being typed.
fn answers(words: &[&str]) -> String {
    let mut answer = Vec::new();
    let words = [&["cellule"], words].concat();
    bash::Bash
        .write_complete(
            &mut definition(Words::command()),
            words.iter().map(Into::into).collect(),
            None,
            &mut answer,
        )
        .unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn names_complete_as_the_first_word_alone() {
    assert_eq!(answers(&["w"]), "web:1\nwork\n");
    assert_eq!(answers(&["web:"]), "web:1\n");
    assert_eq!(answers(&["x"]), "");
    assert_eq!(answers(&["work", "w"]), "");
}

#[test]
fn options_and_their_values_complete() {
    assert_eq!(answers(&["--f"]), "--format\n");
    assert_eq!(answers(&["--format", "j"]), "json\njsonl\n");
    assert_eq!(answers(&["--format=t"]), "--format=table\n");
}

#[test]
fn every_shell_is_told_to_ask() {
    for shell in ["bash", "zsh", "fish"] {
        let script = registration(shell).unwrap();
        assert!(
            script.contains(&format!("{ASKING}={shell}"))
                || script.contains(&format!("{ASKING}=\"{shell}\"")),
            "{script}"
        );
        assert!(!script.contains("COMPLETER"), "{script}");
    }
    assert!(registration("tcsh").is_err());
}

/// Runs the registered function in bash as its line editor does, with a completer that answers `answer` and keeps what it
/// was asked. Gives what it was asked and what bash would insert.
fn in_bash(line: &str, parts: &[&str], answer: &str) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let completer =
        format!("#!/bin/sh\nprintf '<%s>' \"$@\" >{}\nprintf '%b' '{answer}'\n", path("asked").display());
    std::fs::write(path("cellule"), completer).unwrap();
    std::fs::set_permissions(path("cellule"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(path("script"), registration("bash").unwrap()).unwrap();
    let parts: Vec<String> = parts.iter().map(|part| format!("'{part}'")).collect();
    let run = format!(
        "source {script}\nCOMP_LINE='{line}' COMP_POINT={point} COMP_WORDS=({parts}) COMP_CWORD={last}\n\
         COMP_WORDBREAKS=$' \\t\\n\"><=;|&(:'\n_cellule\nprintf '<%s>' \"${{COMPREPLY[@]}}\"",
        script = path("script").display(),
        point = line.len(),
        last = parts.len() - 1,
        parts = parts.join(" "),
    );
    let inherited = std::env::var("PATH").unwrap();
    let done = Process::new("bash")
        .args(["--norc", "-c", &run])
        .env("PATH", format!("{}:{inherited}", dir.path().display()))
        .output()
        .unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    (std::fs::read_to_string(path("asked")).unwrap(), String::from_utf8(done.stdout).unwrap())
}

#[test]
fn bash_asks_for_whole_words_and_inserts_what_it_lacks() {
    let (asked, inserted) = in_bash("cellule run deb", &["cellule", "run", "deb"], "debian:12\\ndebian:13");
    assert_eq!(asked, "<--><cellule><run><deb>");
    assert_eq!(inserted, "<debian:12><debian:13>");

    let parts = ["cellule", "run", "debian", ":", "1"];
    let (asked, inserted) = in_bash("cellule run  debian:1", &parts, "debian:12\\ndebian:13");
    assert_eq!(asked, "<--><cellule><run><debian:1>");
    assert_eq!(inserted, "<12><13>");

    let parts = ["cellule", "ps", "--format", "=", "j"];
    let (asked, inserted) = in_bash("cellule ps --format=j", &parts, "--format=json");
    assert_eq!(asked, "<--><cellule><ps><--format=j>");
    assert_eq!(inserted, "<json>");

    let (asked, _) = in_bash("cellule run ", &["cellule", "run", ""], "x");
    assert_eq!(asked, "<--><cellule><run><>");
}

#[test]
fn bash_inserts_nothing_where_there_is_no_answer_and_expands_none() {
    let (_, inserted) = in_bash("cellule run x", &["cellule", "run", "x"], "");
    assert_eq!(inserted, "<>");
    let (_, inserted) = in_bash("cellule run x", &["cellule", "run", "x"], "*\\n$(id)");
    assert_eq!(inserted, "<*><$(id)>");
}
