use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use serde_json::json;

use super::Arguments;
use crate::failure::{Exit, Result};
use crate::terminal::output::Output;

/// Print a completion script for a shell
#[derive(Args)]
pub struct Completions {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub fn run(self, output: &Output) -> Result<Exit> {
        let mut script = Vec::new();
        generate(self.shell, &mut Arguments::command(), "backlog-cleanup", &mut script);
        // clap_complete gives a command two names in bash if the program's name has a hyphen (clap issue 6421).
        let script = String::from_utf8_lossy(&script).replace("backlog__subcmd__cleanup", "backlog__cleanup");
        if output.json {
            output.json(&json!({ "shell": self.shell.to_string(), "script": script }))?;
        } else {
            output.whole(script.trim_end())?;
        }
        Ok(Exit::Done)
    }
}
