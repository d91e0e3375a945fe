use pgrx::pg_sys;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::now::one_now;

/// What a foreign table stands for: its server, its names and those of its columns, the options of all, of the wrapper, and of its owner's
/// mapping. With another table, column, host or role there, its rows are others: postgres_fdw takes the names that no option has.
/// Options of a mapping are secrets, so that only the version of its row is told.
pub fn stands_for(table: pg_sys::Oid) -> Result<String> {
    const STANDS_FOR: &str = "
        SELECT encode(sha256(convert_to(jsonb_build_array(
            CASE WHEN NOT has.schema_name THEN n.nspname END, CASE WHEN NOT has.table_name THEN c.relname END, t.ftoptions, a.columns,
            s.oid, s.srvtype, s.srvversion, s.srvoptions, w.oid, w.fdwhandler, w.fdwoptions, m.oid, m.xmin)::text, 'UTF8')), 'hex')
        FROM pg_foreign_table t
        JOIN pg_class c ON c.oid = t.ftrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL (SELECT coalesce(bool_or(starts_with(option, 'schema_name=')), false),
                                   coalesce(bool_or(starts_with(option, 'table_name=')), false)
                            FROM unnest(t.ftoptions) AS option) AS has (schema_name, table_name)
        CROSS JOIN LATERAL (SELECT jsonb_agg(jsonb_build_array(attname, attfdwoptions) ORDER BY attnum) AS columns
                            FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) a
        JOIN pg_foreign_server s ON s.oid = t.ftserver
        JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
        LEFT JOIN LATERAL (SELECT oid, xmin FROM pg_user_mapping
                           WHERE umserver = s.oid AND umuser IN (c.relowner, 0) ORDER BY umuser DESC LIMIT 1) m ON true
        WHERE t.ftrelid = $1";
    extension::as_owner(|| one_now::<String>(STANDS_FOR, &[table.into()])).map(Option::unwrap_or_default)
}
