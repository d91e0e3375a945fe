use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::postgres::now::rows_now;
use crate::rank::tally::{Counts, Tally};
use crate::rules::matching::Policies;
use crate::rules::policy::{Cutoff, Names, Policy};

/// Saves the policies that a run obeys, with the rows that it has found under each and those that it has removed.
pub fn save(run_id: i64, policies: &Policies, tally: &Tally, is_done: bool) -> Result<()> {
    let list = &policies.list;
    let name =
        |of: fn(&Names) -> &Option<String>| list.iter().map(|policy| of(&policy.names).clone()).collect::<Vec<_>>();
    let cutoffs: Vec<&str> = list.iter().map(|policy| policy.cutoff.as_str()).collect();
    let keep: Vec<i32> = list.iter().map(|policy| policy.keep).collect();
    let keep_cutoffs: Vec<Option<&str>> =
        list.iter().map(|policy| policy.keep_cutoff.as_ref().map(Cutoff::as_str)).collect();
    let enabled: Vec<bool> = list.iter().map(|policy| policy.is_enabled).collect();
    let counts = tally.by_policy();
    let in_scope: Vec<i64> = counts.iter().map(|counts| counts.in_scope).collect();
    let done = |number: fn(&Counts) -> i64| -> Vec<i64> {
        counts.iter().map(|counts| if is_done { number(counts) } else { 0 }).collect()
    };
    extension::as_owner(|| {
        Spi::run_with_args(
            "INSERT INTO backlog_cleanup.run_policy (run_id, place, recipe_id, failure_type, status, cutoff, keep, keep_cutoff, enabled,
                                                     in_scope, removed, kept_back)
             SELECT $1, place - 1, recipe_id, failure_type, status, cutoff::timestamptz, keep, keep_cutoff::timestamptz, enabled,
                    in_scope, removed, kept_back
             FROM ROWS FROM (unnest($2), unnest($3), unnest($4), unnest($5), unnest($6), unnest($7), unnest($8), unnest($9),
                             unnest($10), unnest($11))
                  WITH ORDINALITY AS policy (recipe_id, failure_type, status, cutoff, keep, keep_cutoff, enabled, in_scope,
                                             removed, kept_back, place)",
            &[
                run_id.into(),
                name(|names| &names.recipe_id).into(),
                name(|names| &names.failure_type).into(),
                name(|names| &names.status).into(),
                cutoffs.into(),
                keep.into(),
                keep_cutoffs.into(),
                enabled.into(),
                in_scope.into(),
                done(|counts| counts.removed).into(),
                done(|counts| counts.kept_back).into(),
            ],
        )
        .map_err(spi)
    })
}

/// The policies that a run obeys.
pub fn load(run_id: i64) -> Result<Policies> {
    const POLICIES: &str = r#"
        SELECT recipe_id, failure_type, status, keep, enabled,
               coalesce(to_char(timezone('UTC', cutoff), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '-infinity'),
               to_char(timezone('UTC', keep_cutoff), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        FROM backlog_cleanup.run_policy WHERE run_id = $1 ORDER BY place"#;
    let list = extension::as_owner(|| {
        rows_now(POLICIES, &[run_id.into()], |row| {
            Ok(Policy {
                names: Names { recipe_id: row.get(1)?, failure_type: row.get(2)?, status: row.get(3)? },
                keep: row.get(4)?.unwrap_or_default(),
                is_enabled: row.get(5)?.unwrap_or_default(),
                cutoff: Cutoff(row.get(6)?.unwrap_or_default()),
                keep_cutoff: row.get(7)?.map(Cutoff),
            })
        })
    })?;
    Ok(Policies::new(list))
}

/// The rows that a run has found under each policy, and those that it has removed, in the same order.
pub fn counts(run_id: i64) -> Result<Vec<Counts>> {
    const COUNTS: &str =
        "SELECT in_scope, removed, kept_back FROM backlog_cleanup.run_policy WHERE run_id = $1 ORDER BY place";
    extension::as_owner(|| {
        rows_now(COUNTS, &[run_id.into()], |row| {
            let [in_scope, removed, kept_back] = [row.get(1)?, row.get(2)?, row.get(3)?].map(Option::unwrap_or_default);
            Ok(Counts { in_scope, removed, kept_back })
        })
    })
}
