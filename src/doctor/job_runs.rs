use crate::doctor::job::of_job;
use crate::obstacles::problem::Problem;
use crate::postgres::error::Result;

/// Of the last five runs of a job (`$1`) in pg_cron's record: the newest failure, one that never started though a later one is
/// there, and the newest success without a run of ours behind it. Of a message the first line: its DETAIL may show rows.
const RUNS: &str = "
    WITH last AS (
        SELECT row_number() OVER (ORDER BY runid DESC) AS place, d.status, d.start_time, d.end_time,
               split_part(left(d.return_message, 2000), E'\n', 1) AS message,
               to_char(d.start_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC') AS started
        FROM cron.job_run_details d WHERE d.jobid = $1
        ORDER BY runid DESC LIMIT 5
    )
    (SELECT CASE WHEN place = min THEN 'fail' ELSE 'warn' END,
            format('the run of %s failed: %s', started, message), NULL
     FROM (SELECT *, min(place) OVER () FROM last WHERE status IN ('succeeded', 'failed')) ended
     WHERE status = 'failed'
     ORDER BY place LIMIT 1)
    UNION ALL
    (SELECT 'warn', format('pg_cron has not started the job for a run that it has as \"%s\": a connection or a background worker '
                           'may be missing, the server''s log has the reason', status), NULL
     FROM last WHERE status IN ('starting', 'connecting', 'sending') AND place > 1 LIMIT 1)
    UNION ALL
    (SELECT 'warn', format('pg_cron''s run of %s succeeded, but the history has no run of target \"%s\" then', started, $2), NULL
     FROM (SELECT * FROM last WHERE status = 'succeeded' ORDER BY place LIMIT 1) newest
     WHERE NOT EXISTS (SELECT FROM backlog_cleanup.run r
                       WHERE r.target = $2 AND r.started_at <= newest.end_time + interval '1 second'
                         AND coalesce(r.finished_at, 'infinity') >= newest.start_time - interval '1 second'))
    UNION ALL
    SELECT 'ok', CASE current_setting('cron.log_run', true) WHEN 'off' THEN 'cron.log_run is off: there is no record of the runs'
                                                            ELSE 'the job has not run yet' END, NULL
    WHERE NOT EXISTS (SELECT FROM last WHERE status IN ('succeeded', 'failed'))";

/// Checks what pg_cron says of the job's last runs, and that a run of the target stands behind it.
pub fn runs(target: &str) -> Result<Vec<Problem>> {
    of_job(target, RUNS)
}
