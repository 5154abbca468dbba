//! A build in a sandbox: sources go in as files, a command makes something of them, and the result comes out.
//!
//! ```console
//! $ cargo run --example build
//! ```
#![expect(clippy::print_stdout, reason = "a program speaks to its terminal")]

use cellule::{Exit, ReadRange, Sandbox, WriteOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MAKE: &str = "set -e; cat chapters/*.txt > book.txt; wc -w book.txt; sha256sum book.txt > book.sum";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sandbox = Sandbox::builder("base")?.start().await?;
    let files = sandbox.files();

    files.make_dir("/work/chapters", true, None).await?;
    for (number, text) in ["A sandbox woke.", "It built a book.", "Then it was gone."].iter().enumerate() {
        let path = format!("/work/chapters/{number}.txt");
        let mut file = files.write(path, WriteOptions::default()).await?;
        file.write_all(format!("{text}\n").as_bytes()).await?;
        // The file is there, whole, from this moment on.
        file.finish().await?;
    }

    let build = sandbox.command("sh").args(["-c", MAKE]).current_dir("/work").output().await?;
    print!("{}", String::from_utf8_lossy(&build.stdout));
    if build.status.exit != Exit::Code(0) {
        return Err(String::from_utf8_lossy(&build.stderr).into());
    }

    let mut book = String::new();
    files.read("/work/book.txt", ReadRange::default()).await?.read_to_string(&mut book).await?;
    print!("{book}");
    sandbox.end().await?;
    Ok(())
}
