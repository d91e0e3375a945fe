-- One statement: rank every expired failure with a window, join back by ctid.
WITH ranked AS (
    SELECT ctid, row_number() OVER (PARTITION BY recipe_id ORDER BY updated_at DESC, id DESC) AS rank
    FROM generations
    WHERE user_id = 'system_backlog' AND status = 'failed'
      AND updated_at < (now() AT TIME ZONE 'UTC') - interval '24 hours')
DELETE FROM generations g USING ranked WHERE g.ctid = ranked.ctid AND rank > 10;
