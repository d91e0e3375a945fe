use backlog_cleanup_report::{
    Batched, CleanupDetail, EmergencyReport, Nouns, PolicyDetail, RegularReport, StatusDetail, policy_name,
};
use serde::{Deserialize, Serialize};

use crate::failure::Result;
use crate::printable::printable;
use crate::terminal::output::Output;
use crate::words::{count, duration, in_scope, number, recipe_id};

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
    nouns: &'a Nouns,
    run_id: Option<i64>,
    removed: i64,
    duration_ms: i64,
    details: &'a [CleanupDetail],
    policies: &'a [PolicyDetail],
    statuses: &'a [StatusDetail],
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

    /// Rows that policies hold, and that it passes over.
    pub fn held(&self) -> i64 {
        self.common().held_count
    }

    pub fn nouns(&self) -> &Nouns {
        self.common().nouns
    }

    fn common(&self) -> Common<'_> {
        match self {
            Report::BatchedRegular(Batched { report, .. }) | Report::Regular(report) => Common {
                message: &report.message,
                nouns: &report.nouns,
                run_id: report.run_id,
                removed: report.cleaned_up_generations,
                duration_ms: report.duration_ms,
                details: &report.cleanup_details,
                policies: &report.policies,
                statuses: &report.statuses,
                kept_back_count: report.kept_back_count,
                skipped_count: report.skipped_count,
                kept_back_reason: report.kept_back_reason.as_deref(),
                held_count: report.held_count,
                wal_bytes: report.wal_bytes,
            },
            Report::BatchedEmergency(Batched { report, .. }) | Report::Emergency(report) => Common {
                message: &report.message,
                nouns: &report.nouns,
                run_id: report.run_id,
                removed: report.removed_count,
                duration_ms: report.duration_ms,
                details: &report.cleanup_details,
                policies: &report.policies,
                statuses: &report.statuses,
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
            nouns,
            run_id,
            removed,
            duration_ms,
            details,
            policies,
            statuses,
            kept_back_reason,
            held_count,
            wal_bytes,
            ..
        } = self.common();
        self.show_recipes(output, limit)?;
        show_statuses(output, statuses, limit, run_id.is_none())?;
        show_policies(output, nouns, policies, limit, run_id.is_none())?;
        let failed = details.iter().map(|recipe| recipe.failed_count).sum();
        let recipes = count(details.len() as i64, &nouns.group_word);
        let rows = in_scope(failed, &nouns.row_word);
        let of = printable(&format!("{} of {rows} of {recipes}", number(removed)));
        output.line(printable(message))?;
        match run_id {
            Some(run) => output.line(format_args!("Run {run} removed {of}, in {}", duration(duration_ms)))?,
            None => output.line(format_args!("A run would remove {of}"))?,
        }
        if let Some(bytes) = wal_bytes.filter(|_| run_id.is_none()) {
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
            (None, 1..) => {
                let rows = count(held_count, &nouns.row_word);
                output.line(format_args!("Held by policies: {}", printable(&rows)))
            }
            _ => Ok(()),
        }
    }

    /// Prints the recipes, at most `limit` of them.
    pub fn show_recipes(&self, output: &Output, limit: usize) -> Result<()> {
        let Common { run_id, nouns, details, .. } = self.common();
        show_recipes(output, nouns, details, limit, run_id.is_none())
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
pub fn show_policies(
    output: &Output,
    nouns: &Nouns,
    policies: &[PolicyDetail],
    limit: usize,
    is_dry: bool,
) -> Result<()> {
    let group = &nouns.group_word;
    let rows = policies.iter().map(|it| {
        let name = policy_name(group, it.recipe_id.as_deref(), it.failure_type.as_deref(), it.status.as_deref());
        (name, [it.in_scope, it.removed, it.kept, it.kept_back])
    });
    show_parts(output, "policy", rows, limit, is_dry)
}

/// Prints what a run did to the rows of each status, or in a dry run would do, where there are several.
pub fn show_statuses(output: &Output, statuses: &[StatusDetail], limit: usize, is_dry: bool) -> Result<()> {
    let rows = statuses
        .iter()
        .map(|it| (it.status.clone().unwrap_or_default(), [it.in_scope, it.removed, it.kept, it.kept_back]));
    show_parts(output, "status", rows, limit, is_dry)
}

/// Prints parts of a run that have a name: the rows in scope, removed, kept, kept back.
fn show_parts(
    output: &Output,
    what: &str,
    parts: impl ExactSizeIterator<Item = (String, [i64; 4])>,
    limit: usize,
    is_dry: bool,
) -> Result<()> {
    let all = parts.len();
    if all < 2 || limit == 0 {
        return Ok(());
    }
    let [removed, kept] = headings(is_dry);
    let mut table = output.table([&what.to_uppercase(), "IN SCOPE", removed, kept, "KEPT BACK"]);
    for (name, figures) in parts.take(limit) {
        table.add_row([output.name(name)].into_iter().chain(figures.map(|figure| output.count(figure))));
    }
    output.line(table.trim_fmt())?;
    more(output, what, all, limit)
}

fn headings(is_dry: bool) -> [&'static str; 2] {
    if is_dry { ["WOULD REMOVE", "WOULD KEEP"] } else { ["REMOVED", "KEPT"] }
}

/// Prints what a run did to each recipe, or in a dry run would do.
pub fn show_recipes(
    output: &Output,
    nouns: &Nouns,
    details: &[CleanupDetail],
    limit: usize,
    is_dry: bool,
) -> Result<()> {
    if details.is_empty() || limit == 0 {
        return Ok(());
    }
    let [removed, kept] = headings(is_dry);
    let mut table = output.table(["ID", &nouns.group_word.to_uppercase(), "IN SCOPE", removed, kept]);
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
    more(output, &nouns.group_word, details.len(), limit)
}

/// Says how many of something were left out.
pub fn more(output: &Output, what: &str, all: usize, limit: usize) -> Result<()> {
    match all.saturating_sub(limit) {
        0 => output.line(""),
        hidden => {
            let hidden = count(hidden as i64, &format!("more {what}"));
            output.line(format_args!(" … and {}: --limit {all}\n", printable(&hidden)))
        }
    }
}
