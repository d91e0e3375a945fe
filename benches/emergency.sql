SELECT backlog_cleanup_emergency();
