use backlog_cleanup_report::Level;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::columns::{self, Column, Row};
use crate::client::connect::{Server, begin};
use crate::client::policies;
use crate::failure::{Exit, Failure, Result};
use crate::printable::printable;
use crate::terminal::ask::ask;
use crate::terminal::output::Output;
use crate::words::{argument, count};

/// Show the targets, add, change or drop one
///
/// A target is a row of backlog_cleanup.target: one table to look after, with how to read it. `show` says what each column means.
#[derive(Args)]
pub struct Target {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show all targets
    List,
    /// Show a target: each column, its value, and what it means
    Show {
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Add a target; what is not given has its default
    Add {
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        columns: Columns,
    },
    /// Change columns of a target
    Set {
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        columns: Columns,
    },
    /// Remove a target and its policies, also its holds; its history and its job stay
    Drop {
        #[arg(value_name = "NAME")]
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args)]
struct Columns {
    /// A column and its value as SQL reads it: batch_size=5000, 'statuses={failed,cancelled}', account=NULL
    #[arg(value_name = "COLUMN=VALUE", required = true, value_parser = column)]
    columns: Vec<(String, Value)>,
}

/// Reads `column=value`. The word NULL is no value, in capitals or not.
fn column(text: &str) -> std::result::Result<(String, Value), String> {
    let (column, value) = text.split_once('=').ok_or("there is no = in it")?;
    let value = if value.eq_ignore_ascii_case("null") { Value::Null } else { value.into() };
    Ok((column.trim().into(), value))
}

impl Columns {
    /// Errors: a column is given twice.
    fn row(self, name: Option<&str>) -> Result<Row> {
        let mut row = Row::new();
        let name = name.map(|name| ("name".to_owned(), name.into()));
        for (column, value) in name.into_iter().chain(self.columns) {
            if row.contains_key(&column) {
                return Err(Failure::usage(format!("column \"{column}\" is given twice")));
            }
            row.insert(column, value);
        }
        Ok(row)
    }
}

impl Target {
    pub fn level(&self) -> Level {
        match self.action {
            Action::List | Action::Show { .. } => Level::Monitor,
            Action::Add { .. } | Action::Set { .. } | Action::Drop { .. } => Level::Admin,
        }
    }

    pub async fn run(self, server: &Server, output: &Output) -> Result<Exit> {
        let mut connection = server.connect().await?;
        let mut work = begin(&mut connection).await?;
        let (name, written) = match self.action {
            Action::List => {
                let rows = columns::list(&mut work).await?;
                if output.json {
                    output.json(&rows)?
                } else {
                    list(output, &rows)?
                }
                return Ok(Exit::Done);
            }
            Action::Drop { name, yes } => {
                let is_there = !columns::of(&mut work, &name).await?.is_empty();
                if is_there && !yes {
                    let policies = policies::list(&mut work, &name).await?.len();
                    work.commit().await?;
                    agrees(output, &name, policies as i64)?;
                    work = begin(&mut connection).await?;
                }
                let dropped = columns::drop(&mut work, &name).await?;
                work.commit().await?;
                dropped_or_not(output, &name, dropped)?;
                return Ok(Exit::Done);
            }
            Action::Show { name } => (name, None),
            Action::Add { name, columns } => {
                let row = columns.row(Some(&name))?;
                columns::add(&mut work, &row).await?;
                (name, Some(row))
            }
            Action::Set { name, columns } => {
                let row = columns.row(None)?;
                let set = columns::set(&mut work, &name, &row).await?;
                (set.ok_or_else(|| columns::missing(&name))?, Some(row))
            }
        };
        let columns = columns::of(&mut work, &name).await?;
        if columns.is_empty() {
            return Err(columns::missing(&name));
        }
        work.commit().await?;
        if output.json {
            output.json(&columns)?;
        } else {
            show(output, &columns, |column| written.as_ref().is_none_or(|row| row.contains_key(column)))?;
        }
        Ok(Exit::Done)
    }
}

fn list(output: &Output, rows: &[Row]) -> Result<()> {
    let mut table = output.table(["TARGET", "TABLE", "ACCOUNT", "STATUSES"]);
    for row in rows {
        let text = |column: &str| row.get(column).and_then(Value::as_str).unwrap_or_default();
        let statuses = row.get("statuses").and_then(Value::as_array).into_iter().flatten();
        let statuses: Vec<&str> = statuses.filter_map(Value::as_str).collect();
        table.add_row([
            output.name(text("name")),
            output.name(text("generations_table")),
            output.name(text("account")),
            output.name(statuses.join(", ")),
        ]);
    }
    output.line(table.trim_fmt())
}

/// Prints those columns of a target that are wanted.
fn show(output: &Output, columns: &[Column], is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    let mut table = output.table(["COLUMN", "VALUE", "MEANING"]);
    for column in columns.iter().filter(|column| is_wanted(&column.column)) {
        table.add_row([
            output.cell(&column.column),
            output.cell(column.literal.as_deref().unwrap_or("NULL")),
            output.cell(column.meaning.as_deref().unwrap_or_default()),
        ]);
    }
    output.unbroken(&mut table, ["COLUMN"], []);
    output.line(table.trim_fmt())
}

/// Asks whether a target is to be dropped. Errors: it is not, or nobody answers.
fn agrees(output: &Output, name: &str, policies: i64) -> Result<()> {
    let what = format!("target {} and {}", printable(name), count(policies, "policy"));
    let refusal = match ask(format_args!("Drop {what}? Type the target's name to continue:"), output)? {
        Some(typed) if typed == name => return Ok(()),
        Some(_) => "not confirmed: nothing was dropped".to_owned(),
        None => format!("not confirmed: would drop {what}"),
    };
    Err(Failure::usage(refusal).hint("--yes"))
}

fn dropped_or_not(output: &Output, name: &str, dropped: bool) -> Result<()> {
    if output.json {
        return output.json(&json!({ "target": name, "dropped": dropped }));
    }
    if !dropped {
        return output.line(format_args!("Target {} does not exist", printable(name)));
    }
    output.line(format_args!("Target {} was dropped, with its policies. To remove its job:", printable(name)))?;
    output.whole(format_args!("backlog-cleanup schedule remove --target {}", printable(&argument(name))))
}
