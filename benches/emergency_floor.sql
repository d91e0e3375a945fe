-- The floor of an emergency run: a plain DELETE of the same rows.
DELETE FROM generations WHERE user_id = 'system_backlog' AND status = 'failed';
