//! Runs a Python program that nobody has to trust: no network, a memory limit, a time limit, and its output bounded.
//!
//! ```console
//! $ cargo run --example untrusted_python -- docker.io/library/python:3-slim program.py
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its terminal")]

use std::time::Duration;

use cellule::{Exit, Rlimit, Sandbox};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().unwrap_or_else(|| "docker.io/library/python:3-slim".to_owned());
    let program = match arguments.next() {
        Some(file) => std::fs::read(file)?,
        None => b"import platform\nprint('hello from', platform.release())\n".to_vec(),
    };

    let sandbox = Sandbox::builder(image)?.memory(512 << 20)?.start().await?;
    let output = sandbox
        .command("python3")
        .arg("/tmp/program.py")
        .stage("/tmp/program.py", program, None)
        .timeout(Duration::from_secs(60))
        .rlimit(Rlimit { name: "nproc".to_owned(), soft: Some(64), hard: Some(64) })
        .output_limit(1 << 20)
        .output()
        .await?;

    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    if output.stdout_dropped + output.stderr_dropped > 0 {
        eprintln!("({} bytes more were not kept)", output.stdout_dropped + output.stderr_dropped);
    }
    match output.status.exit {
        _ if output.status.timed_out => eprintln!("it ran too long and was killed"),
        _ if output.status.oom_killed => eprintln!("it needed more memory than it may have"),
        Exit::Code(code) => eprintln!("it ended with code {code}"),
        Exit::Signal(signal) => eprintln!("it was killed by signal {signal}"),
    }
    // Nothing of the sandbox is left after this; dropping it would do the same.
    sandbox.end().await?;
    Ok(())
}
