CALL backlog_cleanup_run(workers => 2);
