use pgrx::prelude::*;

use crate::error::{Result, spi};
use crate::owner::as_owner_of;
use crate::read::read_one;
use crate::target::{Target, state};

/// Rows removed, as the ledger has them and as the runs do: of the accounts of all targets that share the ledger.
pub struct Balance {
    pub ledger: i64,
    pub runs: i64,
}

/// The balance of a target's books; no row where it has no ledger. Reads only: works on a standby. Errors: those of
/// `Target::load`.
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable)]
fn backlog_cleanup_books(
    target: default!(Option<&str>, "'generations'"),
) -> Result<TableIterator<'static, (name!(ledger, i64), name!(runs, i64), name!(difference, i64))>> {
    let balance = balance(&Target::load(target)?)?;
    Ok(TableIterator::new(balance.map(|Balance { ledger, runs }| (ledger, runs, ledger - runs))))
}

/// `None` where the target has no ledger.
pub fn balance(target: &Target) -> Result<Option<Balance>> {
    let Some(ledger) = &target.ledger else { return Ok(None) };
    let (removed, accounts) = state(|| {
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT (SELECT sum(t.removed)::bigint FROM backlog_cleanup.total t
                         WHERE t.target = ANY (array_agg(sharing.name))),
                        array_agg(DISTINCT sharing.account)
                 FROM backlog_cleanup.target sharing
                 WHERE to_regclass(sharing.ledger_table) = $1",
                Some(1),
                &[ledger.table.oid.into()],
            )?;
            rows.first().get_two::<i64, Vec<String>>()
        })
        .map_err(spi)
    })?;
    let amount = as_owner_of(&ledger.table, || {
        read_one::<i64>(
            &format!(
                "SELECT pg_catalog.sum(l.amount)::bigint FROM {} l
                 WHERE l.user_id::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1)
                   AND l.type::pg_catalog.text OPERATOR(pg_catalog.=) 'backlog_cleanup'",
                ledger.table.name
            ),
            &[accounts.into()],
        )
    })?;
    Ok(Some(Balance { ledger: amount.unwrap_or_default(), runs: removed.unwrap_or_default() }))
}
