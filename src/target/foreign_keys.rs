use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, error};
use crate::postgres::now::rows_now;
use crate::target::Target;

/// Where the actions and checks of foreign keys onto a table (`$1`) are switched off: its leaves and the tables that reference
/// them, or reference a table that a removal changes. Returns what is off, and the statement that switches it on.
const DISABLED: &str = "
    WITH RECURSIVE touched (oid, is_changed) AS (
        SELECT $1, true
        UNION
        SELECT next.oid, next.is_changed
        FROM touched CROSS JOIN LATERAL (
            SELECT i.inhrelid, touched.is_changed FROM pg_inherits i WHERE i.inhparent = touched.oid AND NOT i.inhdetachpending
            UNION ALL
            SELECT f.conrelid, f.confdeltype IN ('c', 'n', 'd') FROM pg_constraint f
            WHERE f.contype = 'f' AND f.confrelid = touched.oid AND touched.is_changed
        ) next (oid, is_changed)
    )
    SELECT format('foreign keys onto %s are switched off by disabled triggers of %s',
                  min(f.confrelid::regclass::text), t.tgrelid::regclass),
           format('ALTER TABLE %s %s', t.tgrelid::regclass, string_agg(format('ENABLE TRIGGER %I', t.tgname), ', ' ORDER BY t.oid))
    FROM pg_trigger t
    JOIN pg_constraint f ON f.oid = t.tgconstraint AND f.contype = 'f'
    WHERE t.tgisinternal AND t.tgenabled IN ('D', 'R')
      AND t.tgrelid IN (SELECT oid FROM touched) AND f.confrelid IN (SELECT oid FROM touched WHERE is_changed)
    GROUP BY t.tgrelid
    ORDER BY t.tgrelid";

/// Where `session_replication_role` is set to `replica` for sessions of this database.
const SETTINGS: &str = "
    SELECT format('session_replication_role is replica for %s: foreign keys are switched off',
                  concat_ws(' in ', 'role ' || r.rolname, 'database ' || d.datname)),
           concat_ws(' ', 'ALTER', coalesce('ROLE ' || quote_ident(r.rolname), 'DATABASE ' || quote_ident(d.datname)),
                     CASE WHEN r.oid IS NOT NULL THEN 'IN DATABASE ' || quote_ident(d.datname) END,
                     'RESET session_replication_role')
    FROM pg_db_role_setting s
    LEFT JOIN pg_roles r ON r.oid = s.setrole
    LEFT JOIN pg_database d ON d.oid = s.setdatabase
    WHERE 'session_replication_role=replica' = ANY (s.setconfig) AND coalesce(d.datname = current_database(), true)
    ORDER BY s.setdatabase, s.setrole";

/// What switches the actions of foreign keys off, and the statement that switches them on.
pub type Switch = (String, String);

/// Why a run on the target would leave rows behind that reference removed ones. Its SQLSTATE is 55000.
pub fn is_off(target: &Target) -> Result<Option<ErrorReport>> {
    let off = match of_session()? {
        Some(off) => Some(off),
        None => disabled(target)?.into_iter().next(),
    };
    Ok(off.map(|(message, hint)| {
        error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("target \"{}\": {message}", target.name),
            hint,
        )
    }))
}

/// The tables whose triggers are disabled.
pub fn disabled(target: &Target) -> Result<Vec<Switch>> {
    extension::as_owner(|| rows_now(DISABLED, &[target.table.oid.into()], switch))
}

/// The database and the roles that are set to `replica`.
pub fn settings() -> Result<Vec<Switch>> {
    extension::as_owner(|| rows_now(SETTINGS, &[], switch))
}

/// Whether this session's foreign keys are off.
pub fn of_session() -> Result<Option<Switch>> {
    // SAFETY: a setting, read by the one thread of a backend.
    if unsafe { pg_sys::SessionReplicationRole } != pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32 {
        return Ok(None);
    }
    let message = "session_replication_role is replica: foreign keys are switched off".to_owned();
    let lasting = settings()?.into_iter().map(|(_, mend)| format!("; {mend}")).collect::<String>();
    Ok(Some((message, format!("SET session_replication_role = origin{lasting}"))))
}

fn switch(row: pgrx::spi::SpiHeapTupleData) -> spi::Result<Switch> {
    Ok((row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default()))
}
