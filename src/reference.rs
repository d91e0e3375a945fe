use backlog_cleanup_report::Warning;
use pgrx::prelude::*;

use crate::error::{Result, spi};
use crate::leaf::leaves;
use crate::target::{Target, state};

/// Warns of columns that refer to the target's table and have no index: each removed row would read their whole table.
pub fn without_index(target: &Target) -> Result<Vec<Warning>> {
    let leaves = leaves(target)?;
    let tables: Vec<pg_sys::Oid> = leaves.iter().map(|leaf| leaf.table.oid).chain([target.table.oid]).collect();
    state(|| {
        Spi::connect(|client| {
            client
                .select(
                    "SELECT f.conrelid::regclass::text, f.columns
                     FROM (SELECT c.oid, conrelid, conkey,
                                  (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY place)
                                   FROM pg_catalog.unnest(conkey) WITH ORDINALITY k (number, place)
                                   JOIN pg_catalog.pg_attribute ON attrelid OPERATOR(pg_catalog.=) conrelid
                                                               AND attnum OPERATOR(pg_catalog.=) number) AS columns
                           FROM pg_catalog.pg_constraint c
                           WHERE contype OPERATOR(pg_catalog.=) 'f' AND conparentid OPERATOR(pg_catalog.=) 0::oid
                             AND confrelid OPERATOR(pg_catalog.=) ANY ($1)) f
                     WHERE NOT EXISTS (
                         SELECT FROM pg_catalog.pg_index i
                         WHERE indrelid OPERATOR(pg_catalog.=) conrelid AND indisvalid
                           AND (indpred IS NULL OR pg_catalog.pg_get_expr(indpred, indrelid) OPERATOR(pg_catalog.=)
                                                   pg_catalog.format('(%s IS NOT NULL)', columns))
                           AND ARRAY(SELECT number FROM pg_catalog.unnest(indkey) WITH ORDINALITY k (number, place)
                                     WHERE place OPERATOR(pg_catalog.<=) pg_catalog.cardinality(conkey))
                               OPERATOR(pg_catalog.@>) conkey)
                     ORDER BY 1, 2",
                    None,
                    &[tables.into()],
                )?
                .map(|row| {
                    let (table, columns) = (row.get::<String>(1)?, row.get::<String>(2)?);
                    let (table, columns) = (table.unwrap_or_default(), columns.unwrap_or_default());
                    Ok(Warning {
                        message: format!("{table} ({columns}) refers to {} and has no index", target.table.name),
                        hint: format!("CREATE INDEX CONCURRENTLY ON {table} ({columns})"),
                    })
                })
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })
}
