use std::path::PathBuf;

use clap::{Args, CommandFactory};
use serde_json::json;

use super::Arguments;
use crate::failure::{Exit, Failure, Result};
use crate::terminal::output::Output;

/// Write a manual page for each command
#[derive(Args)]
pub struct Man {
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    pub fn run(self, output: &Output) -> Result<Exit> {
        let command = Arguments::command().disable_help_subcommand(true);
        let written = clap_mangen::generate_to(command, &self.directory);
        written.map_err(|error| Failure::error(format!("{}: {error}", self.directory.display())))?;
        if output.json {
            output.json(&json!({ "directory": self.directory }))?;
        }
        Ok(Exit::Done)
    }
}
