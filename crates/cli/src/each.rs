//! Commands that take several sandboxes: each of them is seen to, whatever becomes of the others.

use std::process::ExitCode;

use crate::failure::{Failure, OWN_FAILURE};

/// How many are seen to at the same time.
const AT_ONCE: usize = 16;

/// Does something to each, several at a time, and prints what comes of it in the order of the names. A failure is told at
/// its place, and shows in the exit code.
pub(crate) async fn each<F>(names: &[String], act: impl Fn(String) -> F) -> Result<ExitCode, Failure>
where
    F: Future<Output = Result<String, Failure>> + Send + 'static,
{
    let mut failed = false;
    for some in names.chunks(AT_ONCE) {
        let acts: Vec<_> = some.iter().map(|name| tokio::spawn(act(name.clone()))).collect();
        for act in acts {
            match act.await {
                Ok(Ok(line)) => crate::answer(&format!("{line}\n"))?,
                Ok(Err(failure)) => {
                    crate::say(&failure.render());
                    failed = true;
                }
                Err(error) => return Err(Failure::because("a command broke off", &error)),
            }
        }
    }
    Ok(code(failed))
}

/// The exit code of a command of which a part may have failed.
pub(crate) fn code(failed: bool) -> ExitCode {
    ExitCode::from(if failed { OWN_FAILURE } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_failure_keeps_no_other_from_being_seen_to_and_shows_in_the_code() {
        let (sender, seen) = std::sync::mpsc::channel();
        let names: Vec<String> = (0..AT_ONCE + 3).map(|n| n.to_string()).collect();
        let act = |name: String| {
            let sender = sender.clone();
            async move {
                sender.send(()).unwrap();
                if name == "1" { Err(Failure::silent(1)) } else { Ok(String::new()) }
            }
        };
        let ended = each(&names, act).await.unwrap();
        assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::from(OWN_FAILURE)));
        drop(sender);
        assert_eq!(seen.iter().count(), names.len());
    }
}
