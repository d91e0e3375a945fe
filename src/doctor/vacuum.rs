use crate::doctor::nodes;
use crate::obstacles::problem::{Problem, problems};
use crate::obstacles::used::on_tables;
use crate::postgres::error::Result;
use crate::target::Target;

const DEAD_ROWS: &str = "
    SELECT 'warn', format('%s has %s dead and %s live rows', used.oid::regclass, s.n_dead_tup, s.n_live_tup),
           format('VACUUM (ANALYZE) %s', used.oid::regclass)
    FROM used JOIN pg_stat_all_tables s ON s.relid = used.oid
    WHERE s.n_dead_tup > 10000 AND s.n_dead_tup > s.n_live_tup / 2
    ORDER BY 2";

/// Finds tables with many dead rows, more than half as many as live ones. Autovacuum starts at a fifth.
pub fn dead_rows(target: &Target) -> Result<Vec<Problem>> {
    let mut found = problems(&on_tables(DEAD_ROWS), &[vec![target.table.oid].into()])?;
    found.extend(nodes::dead_rows(target)?);
    Ok(found)
}

/// Only the server can set autovacuum, but a database and a role can set track_counts, and then their settings count.
const AUTOVACUUM: &str = "
    SELECT 'warn', format('%s is off', name),
           -- Two statements, of which the first cannot be typed together with another one.
           CASE WHEN EXISTS (SELECT FROM pg_file_settings f WHERE f.name = s.name AND f.setting IN ('on', 'true', 'yes', '1')
                                                              AND f.applied)
                THEN 'SELECT pg_reload_conf()' ELSE format('ALTER SYSTEM SET %s = on', name) END
    FROM pg_settings s
    WHERE name IN ('autovacuum', 'track_counts') AND setting = 'off'
      AND source IN ('configuration file', 'command line', 'environment variable')
    UNION ALL
    SELECT 'warn', format('ALTER %s has set track_counts to off', whose), format('ALTER %s RESET track_counts', whose)
    FROM pg_database d
    JOIN pg_db_role_setting s ON d.datname = current_database() AND s.setdatabase IN (0, d.oid)
    LEFT JOIN pg_roles r ON r.oid = s.setrole
    CROSS JOIN LATERAL concat_ws(' ', CASE WHEN s.setrole <> 0 THEN format('ROLE %I', r.rolname)
                                           WHEN s.setdatabase = 0 THEN 'ROLE ALL' END,
                                 CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN 'IN' END,
                                 CASE WHEN s.setdatabase <> 0 THEN format('DATABASE %I', d.datname) END) AS whose
    CROSS JOIN unnest(s.setconfig) AS setting
    WHERE setting ~ '^track_counts=' AND NOT split_part(setting, '=', 2)::boolean
    UNION ALL
    SELECT 'warn', format('autovacuum of %s is off', used.oid::regclass),
           format('ALTER TABLE %s RESET (autovacuum_enabled)', used.oid::regclass)
    FROM used JOIN pg_class c ON c.oid = used.oid, pg_options_to_table(c.reloptions) o
    WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean
    ORDER BY 2";

pub fn autovacuum(target: &Target) -> Result<Vec<Problem>> {
    let mut found = problems(&on_tables(AUTOVACUUM), &[vec![target.table.oid].into()])?;
    found.extend(nodes::autovacuum(target)?);
    Ok(found)
}

const TRANSACTIONS: &str = "
    SELECT 'warn', format('session %s of %I has been in a transaction since %s', pid, usename,
                          to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC')),
           format('SELECT pg_terminate_backend(%s)', pid)
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND xact_start < clock_timestamp() - interval '1 hour'
      AND pid <> pg_backend_pid()
    UNION ALL
    SELECT 'warn', format('prepared transaction %s of database %I has been open since %s', gid, database,
                          to_char(prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC')),
           CASE WHEN database = current_database() THEN format('ROLLBACK PREPARED %L', gid) END
    FROM pg_prepared_xacts
    WHERE prepared < clock_timestamp() - interval '1 hour'
    ORDER BY 2";

/// Finds transactions in any database that are old enough to keep removed rows on disk.
pub fn transactions(_target: &str) -> Result<Vec<Problem>> {
    let mut found = problems(TRANSACTIONS, &[])?;
    found.extend(nodes::transactions()?);
    Ok(found)
}

const REPLICATION_SLOTS: &str = "
    SELECT 'warn', format('replication slot %I is not in use and holds back vacuum', slot_name),
           format('SELECT pg_drop_replication_slot(%L)', slot_name)
    FROM pg_replication_slots
    WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL)
    ORDER BY 2";

pub fn replication_slots(_target: &str) -> Result<Vec<Problem>> {
    problems(REPLICATION_SLOTS, &[])
}
