SELECT backlog_cleanup_failed_generations();
