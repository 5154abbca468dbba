//! A sandbox in the background, which a test talks to through the commands.

use std::ffi::OsStr;
use std::path::PathBuf;

use serde_json::Value;

use crate::{Call, HANG, Home, Outcome, eventually};

/// A sandbox of a test's, by its id. It does not end with this value, but with its [`Home`].
#[derive(Debug)]
pub struct Sandbox<'a> {
    home: &'a Home,
    id: String,
}

impl Home {
    /// Starts one with the words that follow `cellule run --quiet -d`.
    #[track_caller]
    pub fn detached<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Sandbox<'_> {
        let mut call = self.run(["--quiet", "-d"]);
        call = call.with(|command| _ = command.args(words));
        self.sandbox(call.output().exits(0).out().trim_end())
    }

    /// Starts one of the image `base` that does nothing by itself.
    #[track_caller]
    pub fn idle(&self) -> Sandbox<'_> {
        self.detached(["base", "sleep", "100000"])
    }

    /// The one of this id.
    #[track_caller]
    pub fn sandbox(&self, id: &str) -> Sandbox<'_> {
        let hex = id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        assert!(id.len() == 12 && hex, "{id:?} is no id");
        Sandbox { home: self, id: id.to_owned() }
    }

    /// The one of this name.
    #[track_caller]
    pub fn named(&self, name: &str) -> Sandbox<'_> {
        let text = self.cellule(["inspect", name]).output().exits(0).out();
        let known: Value = serde_json::from_str(&text).unwrap();
        self.sandbox(known[0]["id"].as_str().unwrap())
    }

    /// What `ps` tells with these options.
    #[track_caller]
    pub fn ps<S: AsRef<OsStr>>(&self, options: impl IntoIterator<Item = S>) -> Vec<Value> {
        let call = self.cellule(["ps", "--format", "json"]).with(|command| _ = command.args(options));
        serde_json::from_str(&call.output().exits(0).out()).unwrap()
    }
}

impl Sandbox<'_> {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory.
    pub fn dir(&self) -> PathBuf {
        self.home.path().join("sandboxes").join(&self.id)
    }

    /// A command with its options, applied to this sandbox: `cellule WORDS… ID`.
    pub fn call<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Call {
        self.home.cellule(words).with(|command| _ = command.arg(&self.id))
    }

    /// A command whose words follow the sandbox: `cellule BEFORE… ID AFTER…`.
    pub fn call_with(&self, before: &[&str], after: &[&str]) -> Call {
        self.call(before).with(|command| _ = command.args(after))
    }

    /// `cellule exec OPTIONS… ID COMMAND…`
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Call {
        let mut before = vec!["exec"];
        before.extend(options);
        self.call_with(&before, command)
    }

    /// What a script says in it, which must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.exec(&[], &["sh", "-c", script]).output().exits(0).out()
    }

    /// What `inspect` knows of it.
    #[track_caller]
    pub fn inspect(&self) -> Value {
        let text = self.call(["inspect"]).output().exits(0).out();
        let mut documents: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(documents.len(), 1, "{text}");
        documents.remove(0)
    }

    /// Its state in `inspect`'s words.
    #[track_caller]
    pub fn state(&self) -> String {
        self.inspect()["state"].as_str().unwrap().to_owned()
    }

    /// The processes of this host that it is made of: its supervisor's and its engine's.
    #[track_caller]
    pub fn pids(&self) -> (u32, u32) {
        let known = self.inspect();
        let pid = |what: &str| {
            let pid = known[what].as_u64().unwrap_or_else(|| panic!("no {what} in {known:#}"));
            u32::try_from(pid).unwrap()
        };
        (pid("supervisor_pid"), pid("engine_pid"))
    }

    /// All that its main program wrote to standard output until now.
    #[track_caller]
    pub fn log(&self) -> String {
        self.call(["logs"]).output().exits(0).out()
    }

    /// Waits until its main program has written this.
    #[track_caller]
    pub fn says(&self, words: &str) {
        eventually(words, HANG, || self.log().contains(words));
    }

    /// Waits until it is in this state.
    #[track_caller]
    pub fn becomes(&self, state: &str) {
        eventually(state, HANG, || self.state() == state);
    }

    /// Ends it, wherever it is, and leaves nothing of it.
    #[track_caller]
    pub fn remove(self) -> Outcome {
        self.call(["rm", "--force"]).output().exits(0)
    }
}
