-- What an admin page asks without the extension: six counts.
SELECT count(*) FROM generations WHERE user_id = 'system_backlog';
SELECT count(*) FROM generations WHERE user_id = 'system_backlog' AND status = 'completed';
SELECT count(*) FROM generations WHERE user_id = 'system_backlog' AND status = 'failed';
SELECT count(*) FROM generations WHERE user_id = 'system_backlog' AND status = 'pending';
SELECT count(*) FROM generations WHERE user_id = 'system_backlog' AND status = 'processing';
SELECT recipe_id, count(*) AS failed_count, min(updated_at) AS oldest_failed_at FROM generations
WHERE user_id = 'system_backlog' AND status = 'failed' GROUP BY recipe_id ORDER BY failed_count DESC;
