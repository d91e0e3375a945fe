mod serve;
mod status;

use clap::Subcommand;

use crate::connect::Server;
use crate::failure::{Exit, Result};
use crate::output::Output;

/// One command each: its arguments, and what it does with them, in the file of its name.
#[derive(Subcommand)]
pub enum Command {
    Status(status::Status),
    Serve(serve::Serve),
}

impl Command {
    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        match self {
            Command::Status(command) => command.run(server, output).await,
            Command::Serve(command) => command.run(server).await,
        }
    }
}
