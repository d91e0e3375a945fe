use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::postgres::now::rows_now;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::{briefly, is_cancel};
use crate::postgres::table::Table;
use crate::target::Target;
use crate::target::steady::glance;

/// Rows removed by the runs in the history, over all targets that share a ledger: by the ledger, and by the runs.
pub struct Balance {
    pub ledger: i64,
    pub runs: i64,
}

/// Compares the removed rows of ledger and history; no row if the target has no ledger. Reads only: works on a standby.
/// Errors: those of `Target::load`.
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable)]
fn backlog_cleanup_books(
    target: default!(Option<&str>, "'generations'"),
) -> Result<TableIterator<'static, (name!(ledger, i64), name!(runs, i64), name!(difference, i64))>> {
    let balance = glance(target, balance)?;
    Ok(TableIterator::new(balance.map(|Balance { ledger, runs }| (ledger, runs, ledger - runs))))
}

/// `None` if the target has no ledger. Ledger rows of runs that are no longer in the history, or whose target has been
/// renamed, are in neither sum. Ledger rows that name no run count for the ledger, unless they are older than the first run:
/// those are of whatever cleaned up before the extension.
pub fn balance(target: &Target) -> Result<Option<Balance>> {
    let Some(ledger) = &target.ledger else { return Ok(None) };
    let runs = extension::as_owner(|| {
        let names =
            rows_now("SELECT ledger_table FROM backlog_cleanup.target WHERE ledger_table IS NOT NULL", &[], |row| {
                row.get::<String>(1)
            })?;
        let mut names: Vec<String> = names.into_iter().flatten().collect();
        // That of another target can be in a schema that the extension's owner may not use.
        names.retain(|name| match briefly(|| Ok(Table::oid_of(name))) {
            Err(failure) if is_cancel(&failure) => failure.rethrow(),
            found => found.is_ok_and(|oid| oid == Some(ledger.table.oid)),
        });
        Spi::connect(|client| {
            let of_ledger = client.select(
                "SELECT array_agg(DISTINCT sharing.account),
                        coalesce(array_agg(r.id) FILTER (WHERE r.id IS NOT NULL), '{}'),
                        coalesce(array_agg(r.started_at) FILTER (WHERE r.id IS NOT NULL), '{}'),
                        coalesce(sum(r.removed), 0)::bigint
                 FROM backlog_cleanup.target sharing LEFT JOIN backlog_cleanup.run r ON r.target = sharing.name
                 WHERE sharing.ledger_table = ANY ($1)",
                Some(1),
                &[names.into()],
            )?;
            let row = of_ledger.first();
            Ok(Runs { accounts: row.get(1)?, ids: row.get(2)?, started_at: row.get(3)?, removed: row.get(4)? })
        })
        .map_err(spi)
    })?;
    let amount = reading_as_owner_of(&ledger.table, || {
        read_one::<i64>(
            &format!(
                r#"SELECT pg_catalog.sum(l.amount)::bigint
                  FROM (SELECT amount, {created_at} AS created_at,
                               pg_catalog.substring(description::pg_catalog.text COLLATE pg_catalog."C", '{OF_RUN}')::bigint AS run_id
                        FROM {ledger} written
                        WHERE user_id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1)
                          AND type::pg_catalog.text OPERATOR(pg_catalog.=) 'backlog_cleanup') l
                  LEFT JOIN ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS r (id, started_at)
                         ON r.id OPERATOR(pg_catalog.=) l.run_id
                  WHERE CASE WHEN l.run_id IS NULL
                             THEN COALESCE(l.created_at OPERATOR(pg_catalog.>=)
                                           (SELECT pg_catalog.min(started_at) FROM pg_catalog.unnest($3) AS started_at),
                                           l.created_at IS NULL)
                             ELSE l.created_at OPERATOR(pg_catalog.>) (r.started_at OPERATOR(pg_catalog.-) interval '2 days')
                        END"#,
                created_at = target.in_time_zone(&ledger.created_at, "created_at"),
                ledger = ledger.table.name,
            ),
            &[runs.accounts.into(), runs.ids.into(), runs.started_at.into()],
        )
    })?;
    Ok(Some(Balance { ledger: amount.unwrap_or_default(), runs: runs.removed.unwrap_or_default() }))
}

/// Finds the run's id in a description that `ledger::write` has written. After DROP and CREATE EXTENSION ids start again at
/// 1, so a ledger row that is older than the run belongs to an earlier run of that id. Two days are allowed for a `date`
/// column and for time zones.
const OF_RUN: &str = "^(?:regular|emergency) backlog cleanup, run ([0-9]{1,18})[,:]";

/// The runs of the targets that share a ledger.
struct Runs {
    accounts: Option<Vec<String>>,
    ids: Option<Vec<i64>>,
    started_at: Option<Vec<TimestampWithTimeZone>>,
    removed: Option<i64>,
}
