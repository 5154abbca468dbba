//! The commands: one file each. Here is only which there are.

mod doctor;
mod image;
mod images;
mod login;
mod logout;
mod pull;
mod run;
mod setup;
mod supervise;

use std::process::ExitCode;

use crate::failure::Failure;

/// Runs any OCI image as its own Linux microVM.
#[derive(Debug, clap::Parser)]
#[command(name = "cellule", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cellule {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(run::Arguments),
    Pull(pull::Arguments),
    Images(images::Arguments),
    #[command(subcommand)]
    Image(image::Command),
    Login(login::Arguments),
    Logout(logout::Arguments),
    Setup(setup::Arguments),
    Doctor(doctor::Arguments),
    #[command(hide = true)]
    Supervise(supervise::Arguments),
}

/// Does what was asked.
pub(crate) fn dispatch(cellule: Cellule) -> Result<ExitCode, Failure> {
    match cellule.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Pull(arguments) => pull::run(&arguments),
        Command::Images(arguments) => images::run(&arguments),
        Command::Image(command) => image::run(command),
        Command::Login(arguments) => login::run(&arguments),
        Command::Logout(arguments) => logout::run(&arguments),
        Command::Setup(arguments) => setup::run(arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Supervise(arguments) => supervise::run(arguments),
    }
}

/// An executor for one command: it waits for few things at a time, so one thread does.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("cannot start", &error))
}
