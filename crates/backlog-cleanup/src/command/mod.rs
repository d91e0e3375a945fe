//! The commands: each in a file of its name, with its arguments. Stands on all the rest, since one of them starts the server.

mod alerts;
mod cleanup;
mod completions;
mod confirmation;
mod doctor;
mod emergency;
mod explain;
mod man;
mod policy;
mod quiet_hours;
mod report;
mod run;
mod runs;
mod schedule;
mod selection;
mod serve;
mod setup;
mod status;
mod stop;
mod target;
mod tick;
mod watch;

use backlog_cleanup_report::Level;
use clap::{Parser, Subcommand};

use crate::client::connect::Server;
use crate::failure::{Exit, Result};
use crate::terminal::output::{Output, OutputArguments};

/// Command line, admin API and dashboard of the PostgreSQL extension backlog_cleanup.
///
/// Exit codes: 0 done, 1 error, 2 usage, 3 blocked (another run, the breaker, a read-only server), 4 unhealthy (doctor,
/// status --check).
#[derive(Parser)]
#[command(name = "backlog-cleanup", version, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub server: Server,
    #[command(flatten)]
    pub output: OutputArguments,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Setup(setup::Setup),
    Status(status::Status),
    Cleanup(cleanup::Cleanup),
    Emergency(emergency::Emergency),
    Run(run::Run),
    Runs(runs::Runs),
    Stop(stop::Stop),
    Doctor(doctor::Doctor),
    Target(target::Target),
    Policy(policy::Policy),
    Explain(explain::Explain),
    Alerts(alerts::Alerts),
    Report(report::Report),
    QuietHours(quiet_hours::QuietHours),
    Tick(tick::Tick),
    Schedule(schedule::Schedule),
    Watch(watch::Watch),
    Serve(serve::Serve),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    /// The level that a role needs for it, if it calls the extension.
    pub fn level(&self) -> Option<Level> {
        match self {
            Command::Status(_)
            | Command::Runs(_)
            | Command::Doctor(_)
            | Command::Explain(_)
            | Command::Report(_)
            | Command::QuietHours(_)
            | Command::Watch(_) => Some(Level::Monitor),
            Command::Cleanup(_) | Command::Emergency(_) | Command::Run(_) | Command::Stop(_) | Command::Tick(_) => {
                Some(Level::Operator)
            }
            Command::Target(command) => Some(command.level()),
            Command::Policy(command) => Some(command.level()),
            Command::Alerts(command) => Some(command.level()),
            Command::Schedule(command) => Some(command.level()),
            Command::Setup(_) | Command::Serve(_) | Command::Completions(_) | Command::Man(_) => None,
        }
    }

    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        match self {
            Command::Setup(command) => command.run(server, output).await,
            Command::Status(command) => command.run(server, output).await,
            Command::Cleanup(command) => command.run(server, output).await,
            Command::Emergency(command) => command.run(server, output).await,
            Command::Run(command) => command.run(server, output).await,
            Command::Runs(command) => command.run(server, output).await,
            Command::Stop(command) => command.run(server, output).await,
            Command::Doctor(command) => command.run(server, output).await,
            Command::Target(command) => command.run(server, output).await,
            Command::Policy(command) => command.run(server, output).await,
            Command::Explain(command) => command.run(server, output).await,
            Command::Alerts(command) => command.run(server, output).await,
            Command::Report(command) => command.run(server, output).await,
            Command::QuietHours(command) => command.run(server, output).await,
            Command::Tick(command) => command.run(server, output).await,
            Command::Schedule(command) => command.run(server, output).await,
            Command::Watch(command) => command.run(server, output).await,
            Command::Serve(command) => command.run(server).await,
            Command::Completions(command) => command.run(output),
            Command::Man(command) => command.run(output),
        }
    }
}
