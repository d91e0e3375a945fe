use pgrx::pg_sys;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::now::one_now;

/// What a foreign table stands for: its server and the options of both, of the wrapper, and of its owner's mapping. With another
/// table, host or role there, its rows are others. Options of a mapping are secrets, so that only the version of its row is told.
pub fn stands_for(table: pg_sys::Oid) -> Result<String> {
    const STANDS_FOR: &str = "
        SELECT encode(sha256(convert_to(jsonb_build_array(
            s.oid, t.ftoptions, s.srvtype, s.srvversion, s.srvoptions, w.oid, w.fdwhandler, w.fdwoptions, m.oid, m.xmin)::text, 'UTF8')), 'hex')
        FROM pg_foreign_table t
        JOIN pg_class c ON c.oid = t.ftrelid
        JOIN pg_foreign_server s ON s.oid = t.ftserver
        JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
        LEFT JOIN LATERAL (SELECT oid, xmin FROM pg_user_mapping
                           WHERE umserver = s.oid AND umuser IN (c.relowner, 0) ORDER BY umuser DESC LIMIT 1) m ON true
        WHERE t.ftrelid = $1";
    extension::as_owner(|| one_now::<String>(STANDS_FOR, &[table.into()])).map(Option::unwrap_or_default)
}
