SELECT count(*) FROM backlog_cleanup_status();
