-- After platform.sql and outage.sql: the extension, and the rows that a run is to remove.
SET client_min_messages = error;
CREATE EXTENSION backlog_cleanup;
CREATE EXTENSION pg_prewarm;
CREATE TABLE removable AS
    SELECT tid FROM (
        SELECT ctid AS tid, row_number() OVER (PARTITION BY recipe_id ORDER BY updated_at DESC, id DESC) AS rank
        FROM generations
        WHERE user_id = 'system_backlog' AND status = 'failed'
          AND updated_at < (now() AT TIME ZONE 'UTC') - interval '24 hours') ranked
    WHERE rank > 10 ORDER BY tid;
