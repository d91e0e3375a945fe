use pgrx::pg_sys;

use crate::postgres::error::Result;
use crate::postgres::now::one_now;

/// ` COLLATE` with a collation's name, qualified and quoted; empty without one.
pub fn collate(collation: pg_sys::Oid) -> Result<String> {
    const COLLATE: &str = "
        SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, c.collname)
        FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.collnamespace
        WHERE c.oid OPERATOR(pg_catalog.=) $1";
    Ok(one_now::<String>(COLLATE, &[collation.into()])?.unwrap_or_default())
}
