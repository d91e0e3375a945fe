use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::postgres::now::rows_now;
use crate::rank::tally::{Counts, Tally};
use crate::target::Target;

/// Saves the rows that a run has found with each status, and those that it has removed.
pub fn save(run_id: i64, target: &Target, tally: &Tally, is_done: bool) -> Result<()> {
    let counts = tally.by_status();
    let names: Vec<Option<String>> = names(target).take(counts.len()).collect();
    let in_scope: Vec<i64> = counts.iter().map(|counts| counts.in_scope).collect();
    let done = |number: fn(&Counts) -> i64| -> Vec<i64> {
        counts.iter().map(|counts| if is_done { number(counts) } else { 0 }).collect()
    };
    extension::as_owner(|| {
        Spi::run_with_args(
            "INSERT INTO backlog_cleanup.run_status (run_id, place, status, in_scope, removed, kept_back)
             SELECT $1, place - 1, status, in_scope, removed, kept_back
             FROM ROWS FROM (unnest($2), unnest($3), unnest($4), unnest($5))
                  WITH ORDINALITY AS status (status, in_scope, removed, kept_back, place)",
            &[
                run_id.into(),
                names.into(),
                in_scope.into(),
                done(|counts| counts.removed).into(),
                done(|counts| counts.kept_back).into(),
            ],
        )
        .map_err(spi)
    })
}

/// The statuses of a target that its runs remove, as rows have them; `None` behind the last.
pub fn names(target: &Target) -> impl Iterator<Item = Option<String>> {
    target.names_of_statuses.iter().cloned().map(Some).chain(std::iter::repeat(None))
}

/// The rows that a run has found with each status, and those that it has removed.
pub fn counts(run_id: i64) -> Result<Vec<(Option<String>, Counts)>> {
    const COUNTS: &str = "
        SELECT status, in_scope, removed, kept_back FROM backlog_cleanup.run_status WHERE run_id = $1 ORDER BY place";
    extension::as_owner(|| {
        rows_now(COUNTS, &[run_id.into()], |row| {
            let [in_scope, removed, kept_back] = [row.get(2)?, row.get(3)?, row.get(4)?].map(Option::unwrap_or_default);
            Ok((row.get(1)?, Counts { in_scope, removed, kept_back }))
        })
    })
}
