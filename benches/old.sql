-- What a job of pg_cron does where nobody has to see the newest failures.
DELETE FROM generations
WHERE user_id = 'system_backlog' AND status = 'failed' AND updated_at < (now() AT TIME ZONE 'UTC') - interval '24 hours';
