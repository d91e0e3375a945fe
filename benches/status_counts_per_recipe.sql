-- The same six counts per recipe, which is what a status tells.
SELECT recipe_id, count(*) FROM generations WHERE user_id = 'system_backlog' GROUP BY recipe_id;
SELECT recipe_id, count(*) FROM generations WHERE user_id = 'system_backlog' AND status = 'completed' GROUP BY recipe_id;
SELECT recipe_id, count(*) FROM generations WHERE user_id = 'system_backlog' AND status = 'pending' GROUP BY recipe_id;
SELECT recipe_id, count(*) FROM generations WHERE user_id = 'system_backlog' AND status = 'processing' GROUP BY recipe_id;
SELECT recipe_id, count(*) AS failed_count, min(updated_at) AS oldest_failed_at FROM generations
WHERE user_id = 'system_backlog' AND status = 'failed' GROUP BY recipe_id ORDER BY failed_count DESC;
SELECT recipe_id, greatest(count(*) - 10, 0) AS removable_count FROM generations
WHERE user_id = 'system_backlog' AND status = 'failed'
  AND updated_at < (now() AT TIME ZONE 'UTC') - interval '24 hours' GROUP BY recipe_id;
