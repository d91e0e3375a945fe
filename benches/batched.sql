CALL backlog_cleanup_run();
