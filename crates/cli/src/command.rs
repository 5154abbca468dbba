//! The commands: one file each. Here is only which there are.

mod attach;
mod completion;
mod cp;
mod create;
mod diff;
mod doctor;
mod events;
mod exec;
mod execs;
mod fork;
mod fs;
mod image;
mod images;
mod inspect;
mod kill;
mod login;
mod logout;
mod logs;
mod man;
mod network;
mod pause;
mod pool;
mod port;
mod prune;
mod ps;
mod pull;
mod reference;
mod rename;
mod restart;
mod rm;
mod run;
mod setup;
mod shell;
mod snapshot;
mod start;
mod stats;
mod stop;
mod supervise;
mod template;
mod top;
mod unpause;
mod update;
mod wait;

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
    Create(create::Arguments),
    Start(start::Arguments),
    Stop(stop::Arguments),
    Restart(restart::Arguments),
    Kill(kill::Arguments),
    Pause(pause::Arguments),
    Unpause(unpause::Arguments),
    Update(update::Arguments),
    Fork(fork::Arguments),
    Rm(rm::Arguments),
    Prune(prune::Arguments),
    Rename(rename::Arguments),
    Ps(ps::Arguments),
    Inspect(inspect::Arguments),
    Logs(logs::Arguments),
    Wait(wait::Arguments),
    Events(events::Arguments),
    Stats(stats::Arguments),
    Top(top::Arguments),
    Diff(diff::Arguments),
    Exec(exec::Arguments),
    Shell(shell::Arguments),
    Attach(attach::Arguments),
    #[command(subcommand)]
    Execs(execs::Command),
    Cp(cp::Arguments),
    #[command(subcommand)]
    Fs(fs::Command),
    Pull(pull::Arguments),
    Images(images::Arguments),
    #[command(subcommand)]
    Image(image::Command),
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    #[command(subcommand)]
    Template(template::Command),
    #[command(subcommand)]
    Pool(pool::Command),
    #[command(subcommand)]
    Network(network::Command),
    #[command(subcommand)]
    Port(port::Command),
    Login(login::Arguments),
    Logout(logout::Arguments),
    Setup(setup::Arguments),
    Doctor(doctor::Arguments),
    Completion(completion::Arguments),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Arguments),
    /// Print the page of all commands
    #[command(hide = true)]
    Reference,
    #[command(hide = true)]
    Supervise(supervise::Arguments),
}

/// Does what was asked.
pub(crate) fn dispatch(cellule: Cellule) -> Result<ExitCode, Failure> {
    match cellule.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Create(arguments) => create::run(&arguments),
        Command::Start(arguments) => start::run(arguments),
        Command::Stop(arguments) => stop::run(&arguments),
        Command::Restart(arguments) => restart::run(&arguments),
        Command::Kill(arguments) => kill::run(&arguments),
        Command::Pause(arguments) => pause::run(&arguments),
        Command::Unpause(arguments) => unpause::run(&arguments),
        Command::Update(arguments) => update::run(&arguments),
        Command::Fork(arguments) => fork::run(&arguments),
        Command::Rm(arguments) => rm::run(&arguments),
        Command::Prune(arguments) => prune::run(&arguments),
        Command::Rename(arguments) => rename::run(&arguments),
        Command::Ps(arguments) => ps::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Wait(arguments) => wait::run(&arguments),
        Command::Events(arguments) => events::run(&arguments),
        Command::Stats(arguments) => stats::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Exec(arguments) => exec::run(&arguments),
        Command::Shell(arguments) => shell::run(&arguments),
        Command::Attach(arguments) => attach::run(arguments),
        Command::Execs(command) => execs::run(command),
        Command::Cp(arguments) => cp::run(&arguments),
        Command::Fs(command) => fs::run(command),
        Command::Pull(arguments) => pull::run(&arguments),
        Command::Images(arguments) => images::run(&arguments),
        Command::Image(command) => image::run(command),
        Command::Snapshot(command) => snapshot::run(command),
        Command::Template(command) => template::run(&command),
        Command::Pool(command) => pool::run(command),
        Command::Network(command) => network::run(command),
        Command::Port(command) => port::run(command),
        Command::Login(arguments) => login::run(&arguments),
        Command::Logout(arguments) => logout::run(&arguments),
        Command::Setup(arguments) => setup::run(arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Completion(arguments) => completion::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
        Command::Reference => reference::run(),
        Command::Supervise(arguments) => supervise::run(&arguments),
    }
}

/// An executor for one command: it waits for few things at a time, so one thread does.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("cannot start", &error))
}
