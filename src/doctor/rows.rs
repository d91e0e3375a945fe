//! What the rows themselves say: whether any is failed, and can expire. Reads at most a fixed number of pages, a sample of a larger
//! table.

use std::collections::BTreeMap;

use backlog_cleanup_report::counted;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::{Result, spi};
use crate::postgres::names::naming_once;
use crate::postgres::read::read_one;
use crate::postgres::settings::set_local;
use crate::postgres::table::Column;
use crate::rank::index;
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach, leaves};
use crate::target::nearest::nearest;

/// Pages that a census reads, over all leaves: 32 MB.
pub const BUDGET: f64 = 4000.0;
/// Statuses that a detail names.
const NAMED: usize = 5;

/// The rows that were seen, and by how much there are more of them.
#[derive(Default)]
struct Census {
    /// Those of the account's rows that are not in scope.
    statuses: BTreeMap<String, i64>,
    rows: i64,
    of_account: i64,
    failed: i64,
    /// Of these, the rows in each of the target's `statuses`.
    in_status: Vec<i64>,
    never_expiring: i64,
    /// Failed later than a day from now.
    of_future: i64,
    is_sample: bool,
    scale: f64,
}

fn census(target: &Target) -> Result<Census> {
    let leaves: Vec<Leaf> = leaves(target)?.into_iter().filter(|leaf| leaf.reach == Reach::Position).collect();
    let pages: f64 = leaves.iter().map(|leaf| f64::from(leaf.pages)).sum();
    let share = (BUDGET / pages.max(1.0)).min(1.0);
    let in_status: Vec<String> = match &target.status {
        Some(status) => {
            let rows = |value: &String| {
                format!("pg_catalog.count(*) FILTER (WHERE {} AND {})", target.is_of_account(), status.is(value))
            };
            target.statuses.iter().map(rows).collect()
        }
        None => Vec::new(),
    };
    let mut census =
        Census { in_status: vec![0; in_status.len()], is_sample: share < 1.0, scale: 1.0 / share, ..Census::default() };
    const TOMORROW: &str = "SELECT (pg_catalog.now() OPERATOR(pg_catalog.+) interval '24 hours')::pg_catalog.text";
    let tomorrow = read_one::<String>(TOMORROW, &[])?.unwrap_or_default();
    // The same rows again, if an expression fails for one of them.
    let sample = format!(" TABLESAMPLE SYSTEM ({}) REPEATABLE (0)", share * 100.0);
    let sample = if census.is_sample { sample } else { String::new() };
    let columns = [&target.recipe, &target.failure_type].into_iter().filter(|column| column.expression.is_some());
    let needed: String = columns
        .map(|column| format!(", pg_catalog.count({}) FILTER (WHERE {})", column.of_row(), target.is_failed()))
        .collect();
    for leaf in &leaves {
        let part = format!("{} g{sample}", leaf.rows());
        let statement = format!(
            "SELECT CASE WHEN {is_of_account} THEN pg_catalog.left({status}::pg_catalog.text, 1000) END, pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE {is_of_account}),
                    pg_catalog.count(*) FILTER (WHERE {is_failed}),
                    pg_catalog.count(*) FILTER (WHERE {is_failed} AND {failed_at} IS NULL),
                    pg_catalog.count(*) FILTER (WHERE {is_failed} AND {failed_at} OPERATOR(pg_catalog.>) ({tomorrow})),
                    ARRAY[{in_status}]::bigint[]{needed}
             FROM {part} GROUP BY 1",
            status = target.status.as_ref().map_or("NULL".into(), Column::of_row),
            is_of_account = target.is_of_account(),
            is_failed = target.is_failed(),
            failed_at = target.failed_at.of_row(),
            tomorrow = target.as_failed_at(&tomorrow),
            in_status = in_status.join(", "),
        );
        leaf.reading_part_as_owner(target, &part, || {
            Spi::connect(|client| {
                client.select(statement.as_str(), None, &[])?.try_for_each(|row| {
                    let [rows, of_account, failed, never, future] =
                        [2, 3, 4, 5, 6].map(|column| row.get::<i64>(column));
                    let status: Option<String> = row.get(1)?;
                    let of_account = of_account?.unwrap_or_default();
                    let failed = failed?.unwrap_or_default();
                    if let Some(status) = status.filter(|_| of_account > 0 && failed == 0) {
                        *census.statuses.entry(status).or_default() += of_account;
                    }
                    census.rows += rows?.unwrap_or_default();
                    census.of_account += of_account;
                    census.failed += failed;
                    census.never_expiring += never?.unwrap_or_default();
                    census.of_future += future?.unwrap_or_default();
                    let in_status = row.get::<Vec<i64>>(7)?.unwrap_or_default();
                    census.in_status.iter_mut().zip(in_status).for_each(|(all, here)| *all += here);
                    Ok(())
                })
            })
            .map_err(spi)
        })?;
    }
    Ok(census)
}

impl Census {
    /// The statuses that rows have and that the target names nowhere.
    fn unnamed(&self, target: &Target) -> Vec<&String> {
        let lists = target.lists();
        let is_named = |status: &&String| lists.iter().any(|(_, _, values)| values.contains(status));
        self.statuses.keys().filter(|status| !is_named(status)).collect()
    }

    /// The one that is meant by a status that no row has. Few rows may be in no sample.
    fn meant(&self, target: &Target, absent: &str) -> Option<&String> {
        let unnamed = self.unnamed(target);
        let alike = unnamed.iter().find(|status| are_alike(status, absent)).copied();
        let is_complete = !self.is_sample && has_texts(target);
        alike.or_else(|| is_complete.then(|| nearest(absent, &unnamed).copied()).flatten())
    }
}

/// Whether two statuses differ in case or spaces only.
fn are_alike(one: &str, other: &str) -> bool {
    one.trim().eq_ignore_ascii_case(other.trim())
}

/// Whether a status has one text only. Of other types one value has several.
fn has_texts(target: &Target) -> bool {
    target.status.as_ref().is_some_and(Column::has_text_as_written)
}

/// Checks that rows have the account and the statuses that runs remove, or once had, and that no other status is misspelled.
pub fn in_scope(target: &Target) -> Result<Vec<Problem>> {
    let census = census(target)?;
    let has_rows = census.failed > 0 || has_index_entries(target)?;
    let absent = absent(target, &census, has_rows)?;
    let mut found = in_statuses(target, &census, has_rows, &absent)?;
    found.extend(misspelled(target, &census, &absent)?);
    Ok(found)
}

/// The statuses of the target that no row has, and no run has found. Few rows may be in no sample.
fn absent<'a>(target: &'a Target, census: &Census, has_rows: bool) -> Result<Vec<&'a String>> {
    let mut absent = Vec::new();
    let removed = target.statuses.iter().zip(&target.names_of_statuses).zip(&census.in_status);
    for ((status, name), _) in removed.filter(|(_, rows)| **rows == 0 && (!census.is_sample || !has_rows)) {
        if most_found(target, name)?.unwrap_or_default() == 0 {
            absent.push(status);
        }
    }
    if !census.is_sample && has_texts(target) {
        let others = [&target.completed_status, &target.pending_status, &target.processing_status];
        absent.extend(others.into_iter().flatten().filter(|status| !census.statuses.contains_key(*status)));
    }
    Ok(absent)
}

/// Finds statuses of the target that rows have in another spelling: in another case or with spaces, or where no row has the right one,
/// with another letter or two.
fn misspelled(target: &Target, census: &Census, absent: &[&String]) -> Result<Vec<Problem>> {
    let mut found = Vec::new();
    for (_, list, values) in target.lists() {
        let are_removed = list == "statuses";
        let passed_over = if are_removed { "runs do not remove them" } else { "reports do not count them" };
        for status in values {
            if absent.contains(&status) {
                let Some(meant) = census.meant(target, status) else { continue };
                let detail = format!(
                    "no row has status \"{status}\" of {list}, but there are rows with \"{meant}\": {passed_over}"
                );
                let [old, new] = [status, meant].map(quote_literal);
                let fix = target.set(list, &format!("array_replace({list}, {old}, {new})"));
                // Nobody has written that runs are to remove rows with another word.
                let is_clear = !are_removed || are_alike(status, meant) && !is_of_a_policy(target, status)?;
                let decide = if is_clear { "" } else { "; decide which of both is meant" };
                let (detail, fix) = (format!("{detail}{decide}"), is_clear.then_some(fix));
                found.push(Problem { status: Status::Warn, detail, fix });
            } else if has_texts(target) {
                for other in census.unnamed(target).into_iter().filter(|other| are_alike(other, status)) {
                    let about = if census.is_sample { "about " } else { "" };
                    let rows = (census.statuses[other] as f64 * census.scale).round() as i64;
                    let differ = if rows == 1 { "differs" } else { "differ" };
                    let rows = counted(rows, &target.nouns.row_word);
                    let detail = format!(
                        "{about}{rows} with status \"{other}\" {differ} from \"{status}\" of {list} in case or spaces only: {passed_over}; \
                         decide whether {list} is to have both"
                    );
                    found.push(Problem { status: Status::Warn, detail, fix: None });
                }
            }
        }
    }
    Ok(found)
}

fn in_statuses(target: &Target, census: &Census, has_rows: bool, unseen: &[&String]) -> Result<Vec<Problem>> {
    let absent = target.statuses.iter().zip(&census.in_status).filter(|(_, rows)| **rows == 0);
    let absent = absent.map(|(status, _)| status);
    let (misspelt, absent): (Vec<&String>, Vec<&String>) =
        absent.partition(|status| unseen.contains(status) && census.meant(target, status).is_some());
    if absent.is_empty() && !misspelt.is_empty() {
        return Ok(Vec::new());
    }
    // Few rows may be in no sample.
    let is_absent = !census.is_sample || !has_rows;
    let quoted =
        |statuses: &[&String]| statuses.iter().map(|status| format!("\"{status}\"")).collect::<Vec<_>>().join(", ");
    if census.failed > 0 && !absent.is_empty() && is_absent {
        let mut found = Vec::new();
        for (status, name) in target.statuses.iter().zip(&target.names_of_statuses) {
            if absent.contains(&status) && most_found(target, name)? == Some(0) {
                let detail = format!("no row has status \"{status}\", and no run has found one; others have rows");
                let fix = target.set("statuses", &format!("array_remove(statuses, {})", quote_literal(status)));
                let fix = (!is_of_a_policy(target, status)?).then_some(fix);
                found.push(Problem { status: Status::Warn, detail, fix });
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        let detail = format!("no row has status {}; others have rows", quoted(&absent));
        return Ok(vec![Problem { status: Status::Ok, detail, fix: None }]);
    }
    let has_none = target.status.is_none() && census.of_account > 0;
    // Where runs have found rows, these may all be gone.
    if census.rows == 0 || has_rows || census.is_sample || has_none || has_found_rows(target)? {
        return Ok(Vec::new());
    }
    let account = target.account_column.as_ref().zip(target.account.as_deref());
    let detail = if let Some((column, account)) = account.filter(|_| census.of_account == 0) {
        format!("no row has account \"{account}\" in column {}", column.name)
    } else {
        let mut statuses: Vec<(&String, &i64)> = census.statuses.iter().collect();
        statuses.sort_by_key(|(_, rows)| -**rows);
        let names: Vec<&String> = statuses.iter().take(NAMED).map(|(status, _)| *status).collect();
        let others = if account.is_some() { "the account's rows" } else { "the rows" };
        format!("no row has status {}; {others} have {}", quoted(&absent), quoted(&names))
    };
    let detail = format!("{detail}: decide whether the target is right, or nothing has failed yet");
    Ok(vec![Problem { status: Status::Warn, detail, fix: None }])
}

/// Whether the partial index has failed rows; false without it.
fn has_index_entries(target: &Target) -> Result<bool> {
    if !index::exists(target, false)? {
        return Ok(false);
    }
    for leaf in leaves(target)? {
        let exists = format!("SELECT true FROM {} g WHERE {} LIMIT 1", leaf.rows(), target.is_failed());
        let found = leaf.reading_as_owner(target, || {
            set_local("enable_seqscan", "off");
            naming_once(|| read_one::<bool>(&exists, &[]))
        })?;
        if found == Some(true) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a policy names a status: then the target cannot be without it, and a person decides about both.
fn is_of_a_policy(target: &Target, status: &String) -> Result<bool> {
    // A policy names it as rows have it.
    let names = target.statuses.iter().zip(&target.names_of_statuses);
    let status = names.into_iter().find(|(written, _)| *written == status).map_or(status, |(_, name)| name).as_str();
    const NAMED: &str = "SELECT EXISTS (SELECT FROM backlog_cleanup.policy WHERE target = $1 AND status = $2)";
    if !extension::is_updated()? {
        return Ok(false);
    }
    let named = || read_one::<bool>(NAMED, &[target.name.as_str().into(), status.into()]);
    extension::as_owner(named).map(|named| named == Some(true))
}

/// The most rows with this status that a run has found; `None` if none has looked.
fn most_found(target: &Target, status: &str) -> Result<Option<i64>> {
    const MOST: &str = "
        SELECT max(s.in_scope) FROM backlog_cleanup.run_status s JOIN backlog_cleanup.run r ON r.id = s.run_id
        WHERE r.target = $1 AND s.status = $2";
    if !extension::is_updated()? {
        return Ok(None);
    }
    extension::as_owner(|| read_one::<i64>(MOST, &[target.name.as_str().into(), status.into()]))
}

fn has_found_rows(target: &Target) -> Result<bool> {
    let found =
        "SELECT EXISTS (SELECT FROM backlog_cleanup.run WHERE target = $1 AND (total_failed > 0 OR removed > 0))";
    extension::as_owner(|| read_one::<bool>(found, &[target.name.as_str().into()])).map(|found| found == Some(true))
}

/// Finds failed rows without a failed-at, which never expire, and those of the future, which do not for so long: of a clock that
/// was wrong, of milliseconds that were read as seconds, of `infinity`.
pub fn failed_at(target: &Target) -> Result<Vec<Problem>> {
    let census = census(target)?;
    let about = if census.is_sample { "about " } else { "" };
    let column = &target.failed_at_column;
    let never = format!("without {column}, which never expire: decide when they failed, or name another column");
    let later = format!("with a {column} in the future, which do not expire before that: decide when they failed");
    let problem = |(seen, what): (i64, String)| {
        let rows = (seen as f64 * census.scale).round() as i64;
        let rows = target.nouns.in_scope(rows);
        Problem { status: Status::Warn, detail: format!("{about}{rows} {what}"), fix: None }
    };
    let kinds = [(census.never_expiring, never), (census.of_future, later)];
    Ok(kinds.into_iter().filter(|(seen, _)| *seen > 0).map(problem).collect())
}
