use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::history::run::Run;
use crate::postgres::error::{Result, error};
use crate::postgres::now::one_now;
use crate::postgres::read::read_prepared;
use crate::postgres::table::Table;
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach};
use crate::target::spelling::{NAMES, has_all};

/// Refuses to remove rows by an old snapshot (REPEATABLE READ, SERIALIZABLE) if the target, its policies, its leaves or their
/// columns have changed since: the snapshot's rows are not those of the present target, and a rewritten table looks empty to
/// it. The caller has locked the leaves, or one of them. Errors: 40001.
pub fn is_that_of_the_snapshot(target: &Target) -> Result<()> {
    // SAFETY: a setting, read by the one thread of a backend.
    if unsafe { pg_sys::XactIsoLevel } < pg_sys::XACT_REPEATABLE_READ as i32 {
        return Ok(());
    }
    let columns = || target.reads.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let arguments = || [target.name.as_str().into(), target.table.oid.into(), columns().into()];
    let types = target.types()?.to_vec();
    let types = || [types.clone().into()];
    let is_same = extension::as_owner(|| {
        let before = read_prepared::<Vec<String>>(NAMES, &types())?.unwrap_or_default();
        let now = one_now::<Vec<String>>(NAMES, &types())?.unwrap_or_default();
        Ok(has_all(&now, &before)
            && read_prepared::<String>(GROUND, &arguments())? == one_now::<String>(GROUND, &arguments())?)
    })?;
    if is_same {
        return Ok(());
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!("target \"{}\" has been changed since this transaction's snapshot was taken", target.name),
        "ROLLBACK".into(),
    ))
}

/// Errors: 55000 (the run's cutoffs no longer fit the target).
pub fn is_read_as_before(run: &Run, target: &Target, is_the_same: bool) -> Result<()> {
    if is_the_same {
        return Ok(());
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "target \"{}\": its table, its account, its status, its condition, its columns, its time zone or where a foreign table has its rows have changed since run {} started",
            target.name, run.id
        ),
        format!("CALL backlog_cleanup_run({})", quote_literal(&target.name)),
    ))
}

/// Refuses a leaf that Citus has distributed since the run was planned, or does not distribute any more: its rows are elsewhere. The caller
/// has locked it. Errors: 55000.
pub fn is_reached_as_before(run: &Run, leaf: &Leaf, by_key: bool) -> Result<()> {
    if by_key == (leaf.reach == Reach::Key) {
        return Ok(());
    }
    let now = if by_key { "is not distributed any more" } else { "has been distributed" };
    Err(error(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "table \"{}\" {now}, and its rows are not where they were when run {} started",
            leaf.table.name, run.id
        ),
        format!("CALL backlog_cleanup_run({})", quote_literal(&run.target)),
    ))
}

/// Refuses a target whose table is another one now, as Citus replaces it. Errors: 55000.
pub fn has_its_table(run: &Run, target: &Target) -> Result<()> {
    let now = Table::find(&target.generations_table)?;
    is_read_as_before(run, target, now.is_some_and(|table| table.oid == target.table.oid))
}

/// What a run relies on, as text: for target $1 on table $2 with the columns $3.
const GROUND: &str = "
    WITH RECURSIVE leaf (oid) AS (
        SELECT $2
        UNION
        SELECT i.inhrelid FROM pg_inherits i JOIN leaf ON i.inhparent = leaf.oid WHERE NOT i.inhdetachpending)
    SELECT jsonb_build_array(
               (SELECT to_jsonb(t) FROM backlog_cleanup.target t WHERE name = $1),
               (SELECT jsonb_agg(to_jsonb(p) ORDER BY recipe_id, failure_type, status) FROM backlog_cleanup.policy p WHERE target = $1),
               (SELECT jsonb_agg(jsonb_build_array(oid, relname, relnamespace, relowner, relfilenode, relkind) ORDER BY oid)
                FROM pg_class JOIN leaf USING (oid)),
               (SELECT jsonb_agg(jsonb_build_array(attrelid, attname, attnum, atttypid, attcollation) ORDER BY attrelid, attnum)
                FROM pg_attribute JOIN leaf ON attrelid = oid
                WHERE attname::text = ANY ($3) AND attnum > 0 AND NOT attisdropped))::text";
