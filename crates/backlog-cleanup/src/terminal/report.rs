use backlog_cleanup_report::{Batched, CleanupDetail, EmergencyReport, PolicyDetail, RegularReport, policy_name};
use serde::{Deserialize, Serialize};

use crate::failure::Result;
use crate::printable::printable;
use crate::terminal::output::Output;
use crate::words::{count, duration, number, recipe_id};

/// The report of a run or of a dry run.
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
    policies: &'a [PolicyDetail],
    kept_back_count: i64,
    skipped_count: i64,
    kept_back_reason: Option<&'a str>,
    held_count: i64,
    wal_bytes: Option<i64>,
}

impl Report {
    /// Rows that it removed, or would remove.
    pub fn removed(&self) -> i64 {
        self.common().removed
    }

    fn common(&self) -> Common<'_> {
        match self {
            Report::BatchedRegular(Batched { report, .. }) | Report::Regular(report) => Common {
                message: &report.message,
                run_id: report.run_id,
                removed: report.cleaned_up_generations,
                duration_ms: report.duration_ms,
                details: &report.cleanup_details,
                policies: &report.policies,
                kept_back_count: report.kept_back_count,
                skipped_count: report.skipped_count,
                kept_back_reason: report.kept_back_reason.as_deref(),
                held_count: report.held_count,
                wal_bytes: report.wal_bytes,
            },
            Report::BatchedEmergency(Batched { report, .. }) | Report::Emergency(report) => Common {
                message: &report.message,
                run_id: report.run_id,
                removed: report.removed_count,
                duration_ms: report.duration_ms,
                details: &report.cleanup_details,
                policies: &report.policies,
                kept_back_count: report.kept_back_count,
                skipped_count: report.skipped_count,
                kept_back_reason: report.kept_back_reason.as_deref(),
                held_count: report.held_count,
                wal_bytes: report.wal_bytes,
            },
        }
    }

    /// Prints the recipes, at most `limit` of them, and the sum.
    pub fn show(&self, output: &Output, limit: usize) -> Result<()> {
        if output.json {
            return output.json(self);
        }
        let Common {
            message,
            run_id,
            removed,
            duration_ms,
            details,
            policies,
            kept_back_reason,
            held_count,
            wal_bytes,
            ..
        } = self.common();
        self.show_recipes(output, limit)?;
        show_policies(output, policies, limit, run_id.is_none())?;
        let failed = details.iter().map(|recipe| recipe.failed_count).sum();
        let recipes = count(details.len() as i64, "recipe");
        let of = format!("{} of {} of {recipes}", number(removed), count(failed, "failed row"));
        output.line(printable(message))?;
        match run_id {
            Some(run) => output.line(format_args!("Run {run} removed {of}, in {}", duration(duration_ms)))?,
            None => output.line(format_args!("A run would remove {of}"))?,
        }
        if let Some(bytes) = wal_bytes {
            output.line(format_args!(
                "The rehearsal wrote {} of WAL, in {}",
                count(bytes, "byte"),
                duration(duration_ms)
            ))?;
        }
        match self {
            Report::BatchedRegular(batched) => self.show_batches(output, batched)?,
            Report::BatchedEmergency(batched) => self.show_batches(output, batched)?,
            _ => {}
        }
        if let Some(reason) = kept_back_reason {
            output.line(format_args!("Kept back: {}", printable(reason)))?;
        }
        // The message of a real run says it.
        match (run_id, held_count) {
            (None, 1..) => output.line(format_args!("Held by policies: {}", count(held_count, "row"))),
            _ => Ok(()),
        }
    }

    /// Prints the recipes, at most `limit` of them.
    pub fn show_recipes(&self, output: &Output, limit: usize) -> Result<()> {
        let Common { run_id, details, .. } = self.common();
        show_recipes(output, details, limit, run_id.is_none())
    }

    fn show_batches<T>(&self, output: &Output, batched: &Batched<T>) -> Result<()> {
        if batched.batches == 0 {
            return Ok(());
        }
        let Common { kept_back_count, skipped_count, .. } = self.common();
        let took = batched.batch_milliseconds;
        let times = match batched.batches {
            1 => format!("{:.0} ms", took.max),
            _ => format!("median {:.0} ms, longest {:.0} ms", took.median, took.max),
        };
        output.line(format_args!(
            "{}, {times}; {} skipped, {} kept back",
            count(batched.batches, "batch"),
            number(skipped_count),
            number(kept_back_count)
        ))
    }
}

/// Prints what a run did under each policy, or in a dry run would do, where there are several.
pub fn show_policies(output: &Output, policies: &[PolicyDetail], limit: usize, is_dry: bool) -> Result<()> {
    if policies.len() < 2 || limit == 0 {
        return Ok(());
    }
    let [removed, kept] = headings(is_dry);
    let mut table = output.table(["POLICY", "IN SCOPE", removed, kept]);
    for policy in policies.iter().take(limit) {
        let PolicyDetail { recipe_id, failure_type, status, .. } = policy;
        table.add_row([
            output.name(policy_name("recipe", recipe_id.as_deref(), failure_type.as_deref(), status.as_deref())),
            output.count(policy.in_scope),
            output.count(policy.removed),
            output.count(policy.kept),
        ]);
    }
    output.line(table.trim_fmt())?;
    more(output, "policy", policies.len(), limit)
}

fn headings(is_dry: bool) -> [&'static str; 2] {
    if is_dry { ["WOULD REMOVE", "WOULD KEEP"] } else { ["REMOVED", "KEPT"] }
}

/// Prints what a run did to each recipe, or in a dry run would do.
pub fn show_recipes(output: &Output, details: &[CleanupDetail], limit: usize, is_dry: bool) -> Result<()> {
    if details.is_empty() || limit == 0 {
        return Ok(());
    }
    let [removed, kept] = headings(is_dry);
    let mut table = output.table(["ID", "RECIPE", "FAILED", removed, kept]);
    for recipe in details.iter().take(limit) {
        table.add_row([
            output.name(recipe_id(&recipe.recipe_id)),
            output.name(&recipe.recipe_name),
            output.count(recipe.failed_count),
            output.count(recipe.cleaned_count),
            output.count(recipe.kept_count),
        ]);
    }
    output.line(table.trim_fmt())?;
    more(output, "recipe", details.len(), limit)
}

/// Says how many recipes or policies were left out.
pub fn more(output: &Output, what: &str, all: usize, limit: usize) -> Result<()> {
    match all.saturating_sub(limit) {
        0 => output.line(""),
        hidden => {
            let hidden = count(hidden as i64, &format!("more {what}"));
            output.line(format_args!(" … and {hidden}: --limit {all}\n"))
        }
    }
}
