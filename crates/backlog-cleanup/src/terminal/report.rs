use backlog_cleanup_report::{Batched, CleanupDetail, EmergencyReport, RegularReport};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Result;
use crate::terminal::output::{Output, count, counted};

/// What a run says that it did, or would do.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub enum Report {
    BatchedRegular(Batched<RegularReport>),
    BatchedEmergency(Batched<EmergencyReport>),
    Regular(RegularReport),
    Emergency(EmergencyReport),
}

/// What all of them have.
struct Common<'a> {
    message: &'a str,
    run_id: Option<i64>,
    removed: i64,
    duration_ms: i64,
    details: &'a [CleanupDetail],
}

impl Report {
    /// How many rows it removed, or would remove.
    pub fn removed(&self) -> i64 {
        self.common().removed
    }

    /// What it did per recipe.
    pub fn details(&self) -> &[CleanupDetail] {
        self.common().details
    }

    fn common(&self) -> Common<'_> {
        match self {
            Report::BatchedRegular(Batched { report, .. }) | Report::Regular(report) => Common {
                message: &report.message,
                run_id: report.run_id,
                removed: report.cleaned_up_generations,
                duration_ms: report.duration_ms,
                details: &report.cleanup_details,
            },
            Report::BatchedEmergency(Batched { report, .. }) | Report::Emergency(report) => Common {
                message: &report.message,
                run_id: report.run_id,
                removed: report.removed_count,
                duration_ms: report.duration_ms,
                details: &report.cleanup_details,
            },
        }
    }

    /// The recipes, at most `limit` of them, and the sum.
    pub fn show(&self, output: &Output, limit: usize) -> Result<()> {
        if output.json {
            return output.json(self);
        }
        let Common { message, run_id, removed, duration_ms, details } = self.common();
        recipes(output, details, limit)?;
        let failed = details.iter().map(|recipe| recipe.failed_count).sum();
        let of = format!("{} of {}", count(removed), counted(failed, "failed row", "failed rows"));
        let of = format!("{of} of {}", counted(details.len() as i64, "recipe", "recipes"));
        output.line(crate::terminal::output::printable(message))?;
        match run_id {
            Some(run) => output.line(format_args!("Run {run} removed {of}, in {}", milliseconds(duration_ms)))?,
            None => output.line(format_args!("A run would remove {of}"))?,
        }
        match self {
            Report::BatchedRegular(batched) => how_it_went(output, batched),
            Report::BatchedEmergency(batched) => how_it_went(output, batched),
            _ => Ok(()),
        }
    }
}

fn how_it_went<T>(output: &Output, batched: &Batched<T>) -> Result<()> {
    if batched.batches == 0 {
        return Ok(());
    }
    let took = batched.batch_milliseconds;
    let times = match batched.batches {
        1 => format!("{:.0} ms", took.max),
        _ => format!("half of them within {:.0} ms, the longest {:.0} ms", took.median, took.max),
    };
    output.line(format_args!(
        "{}, {times}; {} skipped, {} kept back",
        counted(batched.batches, "batch", "batches"),
        count(batched.skipped_count),
        count(batched.kept_back_count)
    ))
}

/// A table of what a run did per recipe.
pub fn recipes(output: &Output, details: &[CleanupDetail], limit: usize) -> Result<()> {
    if details.is_empty() || limit == 0 {
        return Ok(());
    }
    let mut table = output.table(["ID", "RECIPE", "FAILED", "REMOVED", "KEPT"]);
    for recipe in details.iter().take(limit) {
        table.add_row([
            output.cell(id(&recipe.recipe_id)),
            output.cell(&recipe.recipe_name),
            output.count(recipe.failed_count),
            output.count(recipe.cleaned_count),
            output.count(recipe.kept_count),
        ]);
    }
    output.line(table.trim_fmt())?;
    more(output, details.len(), limit)
}

/// Says how many recipes were not shown.
pub fn more(output: &Output, all: usize, limit: usize) -> Result<()> {
    match all.saturating_sub(limit) {
        0 => output.line(""),
        hidden => output
            .line(format_args!(" … and {}: --limit {all}\n", counted(hidden as i64, "more recipe", "more recipes"))),
    }
}

/// A recipe's id for a person; nothing for rows without a recipe.
pub fn id(id: &Value) -> String {
    match id {
        Value::Null => String::new(),
        Value::String(id) => id.clone(),
        id => id.to_string(),
    }
}

/// 32 ms, 4.2 s, 3:20:01
pub fn milliseconds(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    match milliseconds {
        ..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 => format!("{:.1} s", milliseconds as f64 / 1000.0),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}
