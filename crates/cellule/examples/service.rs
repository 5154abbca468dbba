//! Keeps a service running in a sandbox that outlives this program, and follows its log.
//!
//! ```console
//! $ cargo run --example service           # starts it if it does not run, then shows what it logs
//! $ cellule logs --follow clock           # the same from anywhere
//! $ cellule rm --force clock
//! ```
#![expect(clippy::print_stdout, reason = "a program speaks to its terminal")]

use std::io::Write as _;
use std::time::Duration;

use cellule::{Error, Host, LogOptions};

const NAME: &str = "clock";
const SERVICE: &str = "while :; do echo \"it is $(date -u +%H:%M:%S)\"; sleep 1; done";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::locate()?;
    match host.connect(NAME).await {
        Ok(_) => println!("{NAME} runs already"),
        Err(Error::Find(_)) => {
            let mut sandbox = host
                .sandbox("base")
                .name(NAME)?
                .main(["sh", "-c", SERVICE])
                .remove_when_ended(false)
                .ttl(Duration::from_secs(3600))
                .start()
                .await?;
            sandbox.detach().await?;
            println!("{NAME} was started");
        }
        Err(error) => return Err(error.into()),
    }

    let lines = std::env::args().nth(1).map_or(Ok(5), |count| count.parse())?;
    let mut log =
        host.logs(&host.find(NAME)?, LogOptions { follow: true, tail: Some(1), ..LogOptions::default() })?;
    for _ in 0..lines {
        let Some(record) = log.next().await? else { break };
        std::io::stdout().write_all(&record.bytes)?;
        println!();
    }
    Ok(())
}
