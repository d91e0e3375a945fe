use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
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
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        let written = write(&command, &self.directory);
        written.map_err(|error| Failure::error(format!("{}: {error}", self.directory.display())))?;
        if output.json {
            output.json(&json!({ "directory": self.directory }))?;
        }
        Ok(Exit::Done)
    }
}

/// Writes the page of a command, and those of its own commands.
fn write(command: &Command, directory: &Path) -> io::Result<()> {
    command.get_subcommands().try_for_each(|command| write(command, directory))?;
    let page = clap_mangen::Man::new(command.clone());
    let mut file = File::create(directory.join(page.get_filename()))?;
    page.render(&mut file)?;
    file.write_all(EXIT_STATUS.as_bytes())?;
    // `backlog-cleanup policy set`
    let of = command.get_bin_name().unwrap_or_default().trim_start_matches("backlog-cleanup").trim_start();
    let examples = EXAMPLES.iter().filter(|(command, _)| *command == of).map(|(_, line)| line);
    for (number, example) in examples.enumerate() {
        let heading = if number == 0 { ".SH EXAMPLES\n" } else { "" };
        write!(file, "{heading}.TP\nbacklog\\-cleanup {}\n", example.replace('-', "\\-").replace(": ", "\n"))?;
    }
    Ok(())
}

const EXIT_STATUS: &str = "\
.SH EXIT STATUS
.TP
0
done
.TP
1
error
.TP
2
usage
.TP
3
blocked: another run, the breaker, a read\\-only server
.TP
4
unhealthy: doctor, or status \\-\\-check
";

/// The command, and an example of it with what it does.
const EXAMPLES: &[(&str, &str)] = &[
    ("", "cleanup --dry-run: Counts what a run would remove."),
    ("setup", "setup --arm: Creates the extension, the nightly job and the index."),
    ("status", "status --check --max-failed 10000: Exits with 4 if something is wrong, or if more rows are in scope."),
    ("cleanup", "cleanup --dry-run: Counts what a run would remove."),
    ("cleanup", "cleanup --recipe-id 16: Removes the removable rows of a recipe."),
    ("emergency", "emergency --recipe-id 1 --dry-run: Counts all rows in scope of a recipe."),
    ("run", "run --batch-size 2000 --pause '100 ms': Removes the removable rows in batches, with pauses."),
    ("runs", "runs 7: Shows a run, and what it did to each recipe."),
    ("stop", "stop 7: Stops a run; its current batch ends early."),
    ("doctor", "doctor --strict: Exits with 4 also if a check warns."),
    (
        "target add",
        "target add jobs generations_table=public.job recipes_table=NULL users_table=NULL ledger_table=NULL \
         account_column=NULL account=NULL recipe_column=queue status_column=state 'statuses={failed,cancelled}' \
         failed_at_column=finished_at failure_type_column=error max_rows_per_run=100000: Adds a target.",
    ),
    ("target list", "target list: Shows all targets."),
    ("target show", "target show jobs: Shows each column of a target, its value, and what it means."),
    ("target set", "target set jobs batch_size=2000 pause='100 ms': Changes columns of a target."),
    ("target drop", "target drop jobs: Removes a target and its policies, once its name is typed."),
    ("policy list", "policy list: Shows the policies, with their rows in the last regular run."),
    ("policy set", "policy set --recipe-id 16 --max-age '7 days' --keep 50: Writes the policy of a recipe."),
    ("policy set", "policy set --failure-type timeout --hold: Holds the rows of a failure type."),
    ("policy drop", "policy drop --recipe-id 16: Removes the policy of a recipe."),
    ("policy simulate", "policy simulate --keep 5: Shows what would go if five of each recipe stayed."),
    ("explain", "explain 16640: Shows why a row stays or goes."),
    ("alerts list", "alerts list --all: Shows also the alerts that have resolved."),
    ("alerts snooze", "alerts snooze 5 '2 hours': Keeps an alert from being told of for two hours."),
    ("alerts acknowledge", "alerts acknowledge 5 --note 'the provider is down': Says that you have taken it on."),
    ("report", "report --since '1 day' --markdown: Tells what has happened in a day, for a mail."),
    ("schedule show", "schedule show: Shows the jobs of the target."),
    ("schedule", "schedule show: Shows the jobs of the target."),
    ("schedule set", "schedule set '0 3 * * *' --batched: Runs every night at three, UTC, in batches."),
    ("watch", "watch --interval 5: Shows status and progress, every five seconds."),
];
