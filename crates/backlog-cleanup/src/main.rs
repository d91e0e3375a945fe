//! `backlog-cleanup`: the extension's SQL interface for people, programs and eyes. It adds no logic of its own.

mod channel;
mod client;
mod command;
mod failure;
mod printable;
mod private;
mod random;
mod serve;
mod signals;
mod terminal;
mod words;

use std::process::ExitCode;

use clap::Parser;

use command::{Arguments, Command};
use failure::Failure;
use terminal::output::Output;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    let exit = runtime.block_on(run());
    // A receiver that stalls has a thread that nothing else ends.
    runtime.shutdown_background();
    exit
}

async fn run() -> ExitCode {
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
    let level = command.level();
    match command.run(&server, &output).await {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let role = server.options().map(|options| options.get_username().to_owned());
            let failure = match (level, role) {
                (Some(level), Ok(role)) => failure.of_level(level, &role),
                _ => failure,
            };
            output.failure(&failure);
            failure.exit.into()
        }
    }
}
