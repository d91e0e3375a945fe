use std::collections::BTreeMap;

use backlog_cleanup_report::Mode;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use serde::de::IgnoredAny;

use crate::extension;
use crate::plan::policies as policies_of_run;
use crate::postgres::datum::instant_as_text;
use crate::postgres::error::{Result, error, required};
use crate::postgres::now::rows_now;
use crate::postgres::read::read_one;
use crate::postgres::stream::stream;
use crate::postgres::table::Column;
use crate::rules::matching::{Age, Policies};
use crate::rules::policy::Policy;
use crate::target::Target;
use crate::target::id::Values;
use crate::target::leaf::Leaf;
use crate::target::recipes::bounded;
use crate::target::steady::glance_leaves;

/// The values of an id that a person writes: of one column as it is, of several as a document. Errors: 22P02, 22023, 42804.
fn values_of(target: &Target, id: &str) -> Result<Values> {
    let columns = &target.id.columns;
    let values = if target.id_columns.is_none() {
        vec![Some(id.to_owned())]
    } else {
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let keys = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(id).unwrap_or_default();
        if keys.len() != names.len() || !names.iter().all(|name| keys.contains_key(*name)) {
            let pair = |(name, column): &(String, Column)| format!("{}, {}", quote_literal(name), column.name);
            let pairs: Vec<String> = columns.iter().map(pair).collect();
            return Err(error(
                PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
                format!("\"{id}\" is no document with the keys {}", names.join(", ")),
                format!("SELECT jsonb_build_object({}) FROM {} LIMIT 10", pairs.join(", "), target.table.name),
            ));
        }
        const VALUES: &str =
            "SELECT array_agg($1::jsonb ->> name ORDER BY place) FROM unnest($2) WITH ORDINALITY AS key (name, place)";
        let arguments = [id.into(), names.into()];
        extension::as_owner(|| read_one::<Values>(VALUES, &arguments))?.unwrap_or_default()
    };
    for ((_, column), value) in columns.iter().zip(&values) {
        value.as_ref().map_or(Ok(()), |value| target.accepts(column, value))?;
    }
    Ok(values)
}

/// Why a row stays or goes.
struct Verdict {
    verdict: &'static str,
    reason: String,
    policy: Option<String>,
    rank: Option<i64>,
    keep: Option<i32>,
    expires_at: Option<TimestampWithTimeZone>,
    removable_at: Option<TimestampWithTimeZone>,
}

impl Verdict {
    fn of(verdict: &'static str, reason: impl Into<String>) -> Verdict {
        let reason = reason.into();
        Verdict { verdict, reason, policy: None, rank: None, keep: None, expires_at: None, removable_at: None }
    }
}

/// Returns why a row of a target stays or goes, of a run that starts now: `removable`, `kept`, `young`, `held`, `kept back`, `out of
/// scope` or `no such row`; its policy; its rank among the expired rows of its recipe and policy, the newest first; when it expires, and when
/// it can go as its recipe is now. Reads only: works on a standby. Errors: 22004, 22P02, those of `Target::load`.
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable)]
fn backlog_cleanup_explain(
    id: Option<&str>,
    target: default!(Option<&str>, "'generations'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(verdict, &'static str),
            name!(reason, String),
            name!(policy, Option<String>),
            name!(rank, Option<i64>),
            name!(keep, Option<i32>),
            name!(expires_at, Option<TimestampWithTimeZone>),
            name!(removable_at, Option<TimestampWithTimeZone>),
        ),
    >,
> {
    let hint = format!("SELECT * FROM backlog_cleanup_explain('1', {})", quote_literal(target.unwrap_or_default()));
    let id = required(id, "id", &hint)?;
    let Verdict { verdict, reason, policy, rank, keep, expires_at, removable_at } =
        glance_leaves(target, |target, leaves| {
            let id = values_of(target, id)?;
            let policies = Policies::of(target, Mode::Regular)?;
            // A level says nothing of the rows of other accounts.
            // SAFETY: both roles exist while the caller's statement and the table do.
            let knows_all = unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), target.table.owner) };
            for leaf in leaves {
                if let Some(row) = Found::of(target, leaf, &policies, &id, knows_all)? {
                    return row.verdict(target, leaves, &policies, &id);
                }
            }
            let account = target.account.as_ref().filter(|_| !knows_all);
            let of_account = account.map_or(String::new(), |account| format!(" of account \"{account}\""));
            let (table, row_word) = (&target.table.name, &target.nouns.row_word);
            Ok(Verdict::of("no such row", format!("table {table} has no {row_word} with this id{of_account}")))
        })?;
    Ok(TableIterator::once((verdict, reason, policy, rank, keep, expires_at, removable_at)))
}

/// A row of a leaf with this id.
struct Found {
    /// Its id, as reports have it.
    id: Option<String>,
    recipe_id: Option<String>,
    failure_type: Option<String>,
    /// Its place in `names_of_statuses` of the target.
    status: usize,
    is_of_account: bool,
    /// Also where its status or the condition cannot be read.
    has_its_status: bool,
    meets_its_condition: bool,
    /// No expression of the target fails for it.
    is_readable: bool,
    /// Failed-at, as the column has it: microseconds since 2000.
    at: Option<i64>,
    /// The same as an instant.
    instant: Option<i64>,
}

impl Found {
    /// Reads nothing of a row of another account unless `knows_all`: what fails on its values would tell them.
    fn of(target: &Target, leaf: &Leaf, policies: &Policies, id: &Values, knows_all: bool) -> Result<Option<Found>> {
        let account = if knows_all { "true".to_owned() } else { target.is_of_account() };
        let statement = format!(
            "SELECT {}, ({}) IS TRUE, ({}) IS TRUE, {}, {}, ({}) IS TRUE, {}, ({}) FROM {} g WHERE ({account}) AND {}",
            policies.group_columns(target, &target.recipe.as_text()),
            target.is_of_account(),
            target.may_have_failed(),
            target.failed_at.as_itself(),
            target.instant(&target.failed_at.as_itself()),
            target.may_be_met(),
            target.id.as_text(),
            target.is_readable(),
            leaf.rows(),
            target.id.identifies(id)
        );
        let mut found = None;
        leaf.reading_as_owner(target, || {
            stream(&statement, |row| {
                // SAFETY: these columns are texts: the first two and the id.
                let text = |column| unsafe { row.text(column) }.map(str::to_owned);
                found = Some(Found {
                    id: text(8),
                    recipe_id: text(0).map(|id| bounded(&id).into_owned()),
                    failure_type: text(1),
                    status: row.number(2).unwrap_or_default() as usize,
                    is_of_account: row.number(3) == Some(1),
                    has_its_status: row.number(4) == Some(1),
                    at: row.number(5),
                    instant: row.number(6),
                    meets_its_condition: row.number(7) == Some(1),
                    is_readable: row.number(9) == Some(1),
                });
            })
        })?;
        Ok(found)
    }

    fn verdict(&self, target: &Target, leaves: &[Leaf], policies: &Policies, id: &Values) -> Result<Verdict> {
        if !self.is_of_account {
            return Ok(Verdict::of(
                "out of scope",
                format!("it is not of account \"{}\"", target.account.as_deref().unwrap_or_default()),
            ));
        }
        if !self.has_its_status {
            let unfinished = format!("its {} is NULL: it has not finished", target.failed_at_column);
            let reason = if target.status.is_some() { "its status is none whose rows go".into() } else { unfinished };
            return Ok(Verdict::of("out of scope", reason));
        }
        if !self.meets_its_condition {
            return Ok(Verdict::of("out of scope", "it does not meet the target's condition"));
        }
        if !self.is_readable {
            return Ok(Verdict::of("kept back", "an expression of the target fails for it"));
        }
        let place = self.policy(target, policies);
        let policy = &policies.list[place];
        let verdict = |verdict, reason: String| Verdict {
            policy: Some(policy.names.said(target)),
            keep: Some(policy.keep),
            ..Verdict::of(verdict, reason)
        };
        if policy.is_hold() {
            return Ok(verdict("held", format!("the policy for {} is a hold", policy.names.said(target))));
        }
        if !policy.is_enabled {
            return Ok(verdict("kept", "the default policy is disabled".into()));
        }
        let (Some(at), Some(instant)) = (self.at, self.instant) else {
            return Ok(verdict("young", format!("its {} is NULL, so it never expires", target.failed_at_column)));
        };
        let age = policies.ages(target)?[place];
        let max_age = microseconds_since(policy.cutoff.as_str())?;
        let later = |instant: i64, age: i64| moment(instant.checked_add(age).filter(|_| is_finite(instant)));
        let expires_at = later(instant, max_age);
        let newer = self.newer(target, leaves, policies, place, at, id)?;
        let keep = usize::try_from(policy.keep).unwrap_or_default();
        // It goes once `keep` rows that are newer have expired, or once it is too old to be kept.
        let once_pushed_out = match keep {
            0 => expires_at,
            _ => newer.get(keep - 1).and_then(|(_, instant)| later(*instant, max_age)),
        };
        let too_old = policy.keep_cutoff.as_ref().map(|cutoff| microseconds_since(cutoff.as_str())).transpose()?;
        // By the calendar 60 days can be less than two months.
        let once_too_old = too_old.and_then(|age| later(instant, age.max(max_age)));
        let removable_at = once_pushed_out.into_iter().chain(once_too_old).min();
        let rank = rank(at, &age, &newer);
        let (word, reason) = match rank {
            None => ("young", "it has not expired".to_owned()),
            Some(rank) if !is_removable(at, rank, &age, policy) => {
                ("kept", format!("it is among the newest, rank {rank} of {keep}"))
            }
            Some(rank) => match self.kept_back(target, leaves, policies, at, id)? {
                Some(reason) => ("kept back", reason),
                None if rank <= keep as i64 => {
                    ("removable", format!("it is among the newest, rank {rank} of {keep}, and too old to be kept"))
                }
                None if keep == 0 => ("removable", "it has expired, and none is kept".into()),
                None if rank == 2 => ("removable", "1 newer one has expired".into()),
                None => ("removable", format!("{} newer ones have expired", rank - 1)),
            },
        };
        Ok(Verdict { rank, expires_at, removable_at, ..verdict(word, reason) })
    }

    /// Why the last run that has met the row has kept it back: of the whole target, or of it. The first one is known by its id, another by having been removable under the run's policies.
    fn kept_back(
        &self,
        target: &Target,
        leaves: &[Leaf],
        policies: &Policies,
        at: i64,
        id: &Values,
    ) -> Result<Option<String>> {
        const MET: &str = "
            SELECT CASE WHEN kept_back_row IS DISTINCT FROM left($2, 1000) THEN id END,
                   CASE WHEN kept_back_row = left($2, 1000) THEN format('the last run kept it back: %s', kept_back_message)
                        WHEN kept_back > 1 AND mode = 'regular' AND skipped = 0
                        THEN format('the last run kept it back with %s other%s; row %s has met: %s', kept_back - 1,
                                    CASE WHEN kept_back > 2 THEN 's' END, kept_back_row, kept_back_message) END
            FROM backlog_cleanup.run
            WHERE target = $1 AND (kept_back_row = left($2, 1000) OR state = 'completed' AND recipe_id IS NULL AND failure_type IS NULL
                                                                     AND to_jsonb(run) ->> 'status' IS NULL)
            ORDER BY id DESC LIMIT 1";
        let arguments = [target.name.as_str().into(), self.id.as_deref().into()];
        let last =
            extension::as_owner(|| rows_now(MET, &arguments, |row| Ok((row.get::<i64>(1)?, row.get::<String>(2)?))))?;
        let Some((run_id, Some(reason))) = last.into_iter().next() else { return Ok(None) };
        let Some(run_id) = run_id else { return Ok(Some(reason)) };
        let then = policies_of_run::load(run_id)?;
        let place = self.policy(target, &then);
        let has_kept_back = policies_of_run::counts(run_id)?.get(place).is_some_and(|counts| counts.kept_back > 0);
        // Its failure type is read only if a policy of now names one.
        if !has_kept_back || then.name_failure_types && !policies.name_failure_types {
            return Ok(None);
        }
        let age = then.ages(target)?[place];
        let rank = rank(at, &age, &self.newer(target, leaves, &then, place, at, id)?);
        Ok(rank.filter(|rank| is_removable(at, *rank, &age, &then.list[place])).map(|_| reason))
    }

    /// The place of its policy.
    fn policy(&self, target: &Target, policies: &Policies) -> usize {
        let status = target.names_of_statuses.get(self.status).map(String::as_str);
        policies.of_row(self.recipe_id.as_deref(), self.failure_type.as_deref(), status)
    }

    /// The failed-at of the rows in scope of the same recipe and policy that are newer, the oldest first, twice: as the column has it, and as
    /// an instant.
    fn newer(
        &self,
        target: &Target,
        leaves: &[Leaf],
        policies: &Policies,
        place: usize,
        at: i64,
        id: &Values,
    ) -> Result<Vec<(i64, i64)>> {
        let recipe = match &self.recipe_id {
            Some(recipe_id) => target.is_of_recipe(recipe_id),
            None => format!("{} IS NULL", target.recipe.of_row()),
        };
        let time = target.failed_at.of_row();
        let at =
            format!("{}::{}", quote_literal(instant_as_text(at, target.failed_at.type_oid)), target.failed_at.sql_type);
        let mut newer = Vec::new();
        for leaf in leaves {
            let statement = format!(
                "SELECT {time}, {} FROM {} g
                 WHERE {} AND {recipe} AND {}
                   AND ({time} OPERATOR(pg_catalog.>) {at}
                        OR {time} OPERATOR(pg_catalog.=) {at} AND {})",
                target.instant(&time),
                leaf.rows(),
                target.is_failed(),
                policies.is_under(place, target, Some(self.recipe_id.as_deref())),
                target.id.is_behind(id),
            );
            leaf.reading_as_owner(target, || stream(&statement, |row| newer.extend(row.number(0).zip(row.number(1)))))?;
        }
        newer.sort_unstable();
        Ok(newer)
    }
}

/// Microseconds from an instant, as text, to now.
fn microseconds_since(instant: &str) -> Result<i64> {
    const AGE: &str = "SELECT (extract(epoch FROM now() - $1::timestamptz) * 1000000)::bigint";
    extension::as_owner(|| read_one::<i64>(AGE, &[instant.into()])).map(Option::unwrap_or_default)
}

fn is_finite(instant: i64) -> bool {
    instant != i64::MIN && instant != i64::MAX
}

/// An instant from its microseconds since 2000; `None` beyond the last one that PostgreSQL has.
fn moment(instant: Option<i64>) -> Option<TimestampWithTimeZone> {
    instant.and_then(|instant| TimestampWithTimeZone::try_from(instant).ok())
}

/// Its place among the expired rows, the newest first, given the newer ones; `None` if it has not expired.
fn rank(at: i64, age: &Age, newer: &[(i64, i64)]) -> Option<i64> {
    (at < age.cutoff).then(|| 1 + newer.iter().filter(|(at, _)| *at < age.cutoff).count() as i64)
}

/// Whether a run removes an expired row of this rank.
fn is_removable(at: i64, rank: i64, age: &Age, policy: &Policy) -> bool {
    at < age.keep_cutoff || rank > i64::from(policy.keep)
}
