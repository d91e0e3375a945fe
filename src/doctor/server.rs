use crate::obstacles::problem::{Problem, problems};
use crate::postgres::error::Result;

const WORKERS: &str = "
    SELECT 'warn', format('all %s background workers are in use, and pg_cron may need one', slots),
           format('ALTER SYSTEM SET max_worker_processes = %s; -- and restart the server', 2 * slots)
    FROM (SELECT current_setting('max_worker_processes')::integer AS slots) server
    WHERE slots <= (
        SELECT count(*) FROM pg_stat_activity
        WHERE backend_type NOT IN (
            'client backend', 'autovacuum launcher', 'autovacuum worker', 'archiver', 'background writer', 'checkpointer',
            'io worker', 'logger', 'slotsync worker', 'standalone backend', 'startup', 'walreceiver', 'walsender',
            'walsummarizer', 'walwriter'
        )
    )";

pub fn workers(_target: &str) -> Result<Vec<Problem>> {
    problems(WORKERS, &[])
}

const VERSION: &str = "
    SELECT CASE WHEN a.default_version IS NULL THEN 'fail' ELSE 'warn' END,
           format('the extension is %s, its library %s, the files on disk %s%s', e.extversion, $1,
                  coalesce(a.default_version, 'not there: install the package again'),
                  CASE WHEN a.default_version = e.extversion THEN ': connect again to load them' END),
           CASE WHEN a.default_version <> e.extversion THEN 'ALTER EXTENSION backlog_cleanup UPDATE' END
    FROM pg_extension e LEFT JOIN pg_available_extensions a ON a.name = e.extname
    WHERE e.extname = 'backlog_cleanup' AND (a.default_version, $1) IS DISTINCT FROM (e.extversion, e.extversion)";

pub fn version(_target: &str) -> Result<Vec<Problem>> {
    problems(VERSION, &[env!("CARGO_PKG_VERSION").into()])
}
