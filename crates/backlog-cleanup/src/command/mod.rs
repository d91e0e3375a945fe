mod cleanup;
mod completions;
mod confirmation;
mod doctor;
mod emergency;
mod man;
mod run;
mod runs;
mod schedule;
mod selection;
mod serve;
mod setup;
mod status;
mod watch;

use clap::Subcommand;

use crate::connect::Server;
use crate::failure::{Exit, Result};
use crate::output::Output;

/// One command each: its arguments, and what it does with them, in the file of its name.
#[derive(Subcommand)]
pub enum Command {
    Setup(setup::Setup),
    Status(status::Status),
    Cleanup(cleanup::Cleanup),
    Emergency(emergency::Emergency),
    Run(run::Run),
    Runs(runs::Runs),
    Doctor(doctor::Doctor),
    Schedule(schedule::Schedule),
    Watch(watch::Watch),
    Serve(serve::Serve),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        match self {
            Command::Setup(command) => command.run(server, output).await,
            Command::Status(command) => command.run(server, output).await,
            Command::Cleanup(command) => command.run(server, output).await,
            Command::Emergency(command) => command.run(server, output).await,
            Command::Run(command) => command.run(server, output).await,
            Command::Runs(command) => command.run(server, output).await,
            Command::Doctor(command) => command.run(server, output).await,
            Command::Schedule(command) => command.run(server, output).await,
            Command::Watch(command) => command.run(server, output).await,
            Command::Serve(command) => command.run(server).await,
            Command::Completions(command) => command.run(output),
            Command::Man(command) => command.run(output),
        }
    }
}
