//! `backlog-cleanup`: the extension's SQL interface for people, programs and eyes. It adds no logic of its own.

#[path = "terminal/bar.rs"]
mod bar;
mod command;
#[path = "client/connect.rs"]
mod connect;
mod failure;
#[path = "client/history.rs"]
mod history;
#[path = "terminal/interrupt.rs"]
mod interrupt;
#[path = "terminal/output.rs"]
mod output;
#[path = "terminal/report.rs"]
mod report;
#[path = "terminal/screen.rs"]
mod screen;
mod serve;
mod signals;

use clap::Parser;
use std::process::ExitCode;

use command::Command;
use connect::Server;
use failure::Failure;
use output::{Output, OutputArguments};

/// Keeps a table of job attempts from filling up with failures: the tools beside the extension backlog_cleanup.
///
/// Exit codes: 0 done, 1 error, 2 usage, 3 blocked (another run, the breaker, a read-only server), 4 unhealthy (doctor,
/// status --check).
#[derive(Parser)]
#[command(name = "backlog-cleanup", version, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: OutputArguments,
    #[command(subcommand)]
    command: Command,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { server, output, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() && std::env::args().any(|argument| argument == "--json") => {
            let said = error.render().to_string();
            let (message, rest) = said.split_once('\n').unwrap_or((&said, ""));
            let failure = Failure::usage(message.trim_start_matches("error: ")).hint(rest.trim());
            Output::for_programs().failure(&failure);
            return failure.exit.into();
        }
        Err(error) => error.exit(),
    };
    let output = Output::new(output);
    if !matches!(command, Command::Serve(_)) {
        output.warnings();
    }
    match command.run(&server, &output).await {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit.into()
        }
    }
}
