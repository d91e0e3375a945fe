//! Finds what is wrong with a target and its surroundings, with the statement that fixes it. One file per theme. Knows
//! nothing of its callers.

mod access;
mod deliveries;
mod fix;
mod foreign_keys;
mod history;
mod id;
mod index;
mod job;
mod job_login;
mod job_runs;
mod job_window;
mod nodes;
mod others;
mod partitions;
mod policy;
mod removal;
mod rows;
mod server;
mod tick;
mod timeouts;
mod vacuum;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::doctor::fix::{Hint, is_statement, of_hint};
use crate::extension;
use crate::obstacles::problem::{Problem, Status};
use crate::obstacles::published::replica_identity;
use crate::obstacles::referenced::referenced;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::postgres::settings::{set_local, with_settings};
use crate::postgres::subtransaction::{is_cancel, look, sqlstate};
use crate::postgres::timeout::within;
use crate::schedule::pg_cron_is_here;
use crate::target::row::exists;
use crate::target::{RecipeTable, Target};

pub use index::references;

/// The checks that need the target's tables and columns: name, check, and the detail if nothing is wrong.
const OF_TARGET: [Check<Target>; 25] = [
    ("account", account, "the account is in the users table, if there is one"),
    ("statuses", statuses, "no other status is the same value as one whose rows are removed"),
    ("policy", policy::policies, "the default policy is enabled, and every other one had rows in the last run"),
    ("rows", rows::in_scope, "rows have a status that runs remove, or had it"),
    ("failed_at", rows::failed_at, "every row in scope can expire"),
    ("index", index::partial, "the partial index exists and is used"),
    ("partitions", partitions::expired, "no partition could be dropped instead of removing its rows"),
    ("foreign_keys", foreign_keys::obeyed, "no foreign key onto the table is switched off, or replaced by a rule"),
    ("references", index::references, "every column that references the table has an index"),
    ("referenced", referenced, "no other table keeps rows in scope back"),
    ("replica_identity", replica_identity, "every table whose deletes are published has a replica identity"),
    ("triggers", removal::triggers, "no trigger or rule fires for a removal"),
    ("deferred_constraints", removal::deferred_constraints, "no constraint on removals is deferred"),
    ("row_security", access::row_security, "row security is not forced on the owners"),
    ("owner", access::owner, "no table is owned by a superuser"),
    ("others", others::code, "no other role's code runs with the owners' privileges"),
    ("privileges", access::privileges, "the owners have the privileges that a run needs"),
    ("nodes", nodes::answer, "every node that has shards answers the owners"),
    ("dead_rows", vacuum::dead_rows, "vacuum keeps up with the dead rows"),
    ("autovacuum", vacuum::autovacuum, "autovacuum is on for the table"),
    ("ledger", history::ledger, "the ledger matches the history"),
    ("ledger_row", history::ledger_row, "the ledger can take the row of a run"),
    ("kept_back", history::kept_back, "the last run has kept no row back"),
    ("overdue", history::overdue, "the last regular run is no older than the schedule allows"),
    ("names", names, "the names of recipes can be read"),
];

/// The checks of the surroundings. They run even if the target cannot be loaded.
const AROUND: [Check<str>; 17] = [
    ("last_run", history::last_run, "the last run did not fail"),
    ("pg_cron", job::pg_cron, "pg_cron runs the jobs of this database"),
    ("scheduler", job::scheduler, "the scheduler of pg_cron is running"),
    ("job", job::job, "a job runs the target"),
    ("job_user", job::user, "the job's user exists and may run it"),
    ("job_login", job_login::login, "pg_cron can connect for the job"),
    ("job_time_zone", job::time_zone, "pg_cron reads schedules in UTC"),
    ("job_runs", job_runs::runs, "the job's last runs succeeded"),
    ("tick", tick::tick, "a job ticks, and no step of the last tick has failed"),
    ("deliveries", deliveries::deliveries, "every channel of alerts was served, and takes what it is sent"),
    ("timeouts", timeouts::timeouts, "no timeout of the job's user is close to its runs"),
    ("lost_jobs", job::lost, "every job's target exists"),
    ("workers", server::workers, "background workers are free"),
    ("transactions", vacuum::transactions, "no transaction is open for more than an hour"),
    ("replication_slots", vacuum::replication_slots, "no abandoned replication slot holds back vacuum"),
    ("access", access::access, "no role has privileges beyond its level"),
    ("version", server::version, "the extension, its library and the files on disk have the same version"),
];

/// How long a check waits for a lock: short, so that all checks together take less than a second.
const PATIENCE: &str = "50ms";

/// How long a check may take, in milliseconds: it can run code of a table's owner.
const LONGEST: i64 = 5_000;

type Check<T> = (&'static str, fn(&T) -> Result<Vec<Problem>>, &'static str);

/// One row of the answer: check, status, detail, fix.
type Finding = (String, String, String, Option<String>);

/// Checks a target and its surroundings. One row per check if nothing is wrong, otherwise one per problem: `warn` (it may do
/// harm) or `fail` (it does), with the statement that fixes it; NULL if somebody has to decide what to do, as the detail says.
/// Reads only: works on a standby. Errors: 22004, 42704 (unknown target).
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable)]
fn backlog_cleanup_doctor(
    target: default!(Option<&str>, "'generations'"),
) -> Result<
    TableIterator<
        'static,
        (name!(check_name, String), name!(status, String), name!(detail, String), name!(fix, Option<String>)),
    >,
> {
    let name = exists(target)?;
    let findings = with_settings(|| {
        set_local("lock_timeout", PATIENCE);
        let mut loaded = None;
        let mut findings = examine("target", "its tables and columns exist", || {
            let target = loaded.insert(Target::load(target)?);
            Ok(unused(target)?.into_iter().chain(id::not_unique(target)?).collect())
        });
        if let Some(target) = &loaded {
            let check = |(check, examiner, healthy): Check<Target>| examine(check, healthy, || examiner(target));
            findings.extend(OF_TARGET.into_iter().flat_map(check));
        }
        let check = |(check, examiner, healthy): Check<str>| examine(check, healthy, || examiner(&name));
        findings.extend(AROUND.into_iter().flat_map(check));
        findings
    });
    Ok(TableIterator::new(findings))
}

/// Finds the first of what keeps the job of a target from running. Where pg_cron is not here, something else may run the target.
pub fn why_no_run(target: &str) -> Result<Option<Problem>> {
    let pg_cron = |target: &str| if pg_cron_is_here()? { job::pg_cron(target) } else { Ok(Vec::new()) };
    for check in [pg_cron, job::scheduler, job::job, job::user, job_login::login, job_runs::runs] {
        let found = check(target)?.into_iter().find(|problem| problem.status != Status::Ok);
        if let Some(Problem { status, detail, fix }) = found {
            return Ok(Some(Problem { status, detail, fix: fix.filter(|fix| is_statement(fix)) }));
        }
    }
    Ok(None)
}

/// Finds values of the target that nothing obeys any more.
fn unused(target: &Target) -> Result<Vec<Problem>> {
    let problem = |mistake| {
        let refusal = target.refusal(&[mistake], None);
        Problem { status: Status::Warn, detail: refusal.message().into(), fix: refusal.hint().map(str::to_owned) }
    };
    Ok(target.unused()?.into_iter().map(problem).collect())
}

fn names(target: &Target) -> Result<Vec<Problem>> {
    let problem = target.recipes.as_ref().map_or(Ok(None), RecipeTable::problem)?;
    Ok(problem.into_iter().map(|detail| Problem { status: Status::Warn, detail, fix: None }).collect())
}

fn account(target: &Target) -> Result<Vec<Problem>> {
    target.account_exists()?;
    let problem = |(detail, fix)| Problem { status: Status::Warn, detail, fix: Some(fix) };
    Ok(target.without_limit().into_iter().map(problem).collect())
}

fn statuses(target: &Target) -> Result<Vec<Problem>> {
    target.removed_are_no_other_statuses().map(|()| Vec::new())
}

/// Runs a check: a finding for each of its problems. An error counts as a problem.
fn examine(check: &str, healthy: &str, work: impl FnOnce() -> Result<Vec<Problem>>) -> Vec<Finding> {
    let mut found = match within(LONGEST, || look(work)) {
        Ok(Some(found)) => found,
        Ok(None) => vec![Problem { status: Status::Warn, detail: unfinished(), fix: None }],
        Err(caught) if is_cancel(&caught) => caught.rethrow(),
        Err(caught) => match sqlstate(&caught) {
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
                vec![Problem { status: Status::Warn, detail: locked(), fix: None }]
            }
            _ => vec![fault(caught)],
        },
    };
    // What is only a remark says nothing beside a problem.
    if found.iter().any(|problem| problem.status != Status::Ok) {
        found.retain(|problem| problem.status != Status::Ok);
    } else if found.is_empty() {
        found.push(Problem { status: Status::Ok, detail: healthy.into(), fix: None });
    }
    let finding = |Problem { status, detail, fix }| {
        (check.to_owned(), status.name().to_owned(), detail, fix.filter(|fix| is_statement(fix)))
    };
    found.into_iter().map(finding).collect()
}

fn unfinished() -> String {
    format!(
        "this check was ended after {} s: decide whether the disk is slow, or code that the target's expressions call",
        LONGEST / 1000
    )
}

/// Says who holds a lock that a check would have had to wait for.
fn locked() -> String {
    const HOLDERS: &str = "
        SELECT string_agg(DISTINCT format('session %s of role \"%s\" has locked %s', pid, usename, l.relation::regclass), ', ')
        FROM pg_locks l JOIN pg_stat_activity USING (pid)
        WHERE l.mode = 'AccessExclusiveLock' AND l.granted AND l.locktype = 'relation' AND pid <> pg_backend_pid()
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let holders = extension::as_owner(|| read_one::<String>(HOLDERS, &[])).ok().flatten();
    let holders = holders.map_or(String::new(), |holders| format!(": {holders}"));
    format!("another session has locked what this check looks at{holders}; ask again when it has ended")
}

/// Turns an error into a problem. PostgreSQL's own hints are dropped: they are prose, not statements to type.
fn fault(caught: CaughtError) -> Problem {
    let (detail, fix) = match caught {
        CaughtError::ErrorReport(failure) => {
            let lines = std::iter::once(failure.message()).chain(failure.detail().into_iter().flat_map(str::lines));
            let (message, hint) = (lines.collect::<Vec<_>>().join("; "), failure.hint().unwrap_or_default());
            match of_hint(hint) {
                Hint::Fix => (message, Some(hint.to_owned())),
                Hint::Decision => (format!("{message}; decide, and type {hint}"), None),
                Hint::Advice if hint.starts_with("decide") => (format!("{message}; {hint}"), None),
                Hint::Advice => (message, None),
            }
        }
        CaughtError::PostgresError(failure) => (failure.message().to_owned(), None),
        panic => panic.rethrow(),
    };
    Problem { status: Status::Fail, detail, fix }
}
