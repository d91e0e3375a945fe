//! What the fingerprint makes of messages of real systems, and of any text.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use backlog_cleanup_report::fingerprint;
use proptest::prelude::*;

/// Where it comes from, the message twice, as of two failures of one kind, and the fingerprint of both.
#[rustfmt::skip] // a message a line
const MESSAGES: &[(&str, &str, &str, &str)] = &[
    (
        "ActiveRecord",
        "Couldn't find User with 'id'=184467",
        "Couldn't find User with 'id'=9",
        "Couldn't find User with '*'=#",
    ),
    (
        "ActiveRecord, connection pool",
        "could not obtain a connection from the pool within 5.000 seconds (waited 5.003 seconds); all pooled connections were in use",
        "could not obtain a connection from the pool within 5.000 seconds (waited 5.118 seconds); all pooled connections were in use",
        "could not obtain a connection from the pool within # seconds (waited # seconds); all pooled",
    ),
    (
        "ActiveRecord, statement",
        r#"PG::UniqueViolation: ERROR:  duplicate key value violates unique constraint "index_orders_on_number""#,
        r#"PG::UniqueViolation: ERROR:  duplicate key value violates unique constraint "index_users_on_email""#,
        r#"PG::UniqueViolation: ERROR: duplicate key value violates unique constraint "*""#,
    ),
    (
        "Ruby",
        "undefined method `total' for #<Order:0x000055d0a81c7f28>",
        "undefined method `total' for #<Order:0x00007f2b9c0c1d40>",
        "undefined method `*' for #<Order:#>",
    ),
    (
        "Ruby, nil",
        "undefined method `name' for nil:NilClass",
        "undefined method `email' for nil:NilClass",
        "undefined method `*' for nil:NilClass",
    ),
    (
        "Ruby, Net::HTTP",
        "too many connection resets (due to Net::ReadTimeout) after 3 requests on 69927102504660",
        "too many connection resets (due to Net::ReadTimeout) after 17 requests on 70368112041",
        "too many connection resets (due to Net::ReadTimeout) after # requests on #",
    ),
    (
        "Ruby, socket",
        r#"Failed to open TCP connection to 10.12.0.7:9200 (Connection refused - connect(2) for "10.12.0.7" port 9200)"#,
        r#"Failed to open TCP connection to 10.12.4.31:9200 (Connection refused - connect(2) for "10.12.4.31" port 9200)"#,
        r#"Failed to open TCP connection to # (Connection refused - connect(#) for "*" port #)"#,
    ),
    (
        "Faraday",
        "the server responded with status 429 for GET https://api.example.com/a/1",
        "the server responded with status 429 for GET https://api.example.com/b/2",
        "the server responded with status 429 for GET https://url",
    ),
    (
        "Faraday, other status",
        "the server responded with status 502 for GET https://api.example.com/a/1",
        "the server responded with status 502 for GET https://api.example.com/c",
        "the server responded with status 502 for GET https://url",
    ),
    (
        "Sidekiq",
        "execution expired after 25.0s in Sidekiq::Job worker-3 (jid 8a1f4e0c9b7d6a5533e21f00)",
        "execution expired after 25.1s in Sidekiq::Job worker-12 (jid 0c44e19a7de2b01f9f8e6d12)",
        "execution expired after # in Sidekiq::Job worker-# (jid #)",
    ),
    (
        "Errno",
        "No such file or directory @ rb_sysopen - /app/tmp/uploads/1701199/a.csv",
        "No such file or directory @ rb_sysopen - /app/tmp/uploads/88/report.csv",
        "No such file or directory @ rb_sysopen - /path",
    ),
    (
        "requests",
        "503 Server Error: Service Unavailable for url: https://api.example.com/v1/orders/8812?page=2",
        "503 Server Error: Service Unavailable for url: https://api.example.com/v1/orders/17",
        "503 Server Error: Service Unavailable for url: https://url",
    ),
    (
        "requests, not found",
        "404 Client Error: Not Found for url: https://api.example.com/v1/orders/8812",
        "404 Client Error: Not Found for url: https://api.example.com/v2/users/ada",
        "404 Client Error: Not Found for url: https://url",
    ),
    (
        "urllib3",
        "HTTPSConnectionPool(host='api.example.com', port=443): Read timed out. (read timeout=30)",
        "HTTPSConnectionPool(host='eu.api.example.com', port=8443): Read timed out. (read timeout=10)",
        "HTTPSConnectionPool(host='*', port=#): Read timed out. (read timeout=#)",
    ),
    (
        "urllib3, retries",
        "HTTPSConnectionPool(host='api.example.com', port=443): Max retries exceeded with url: /v1/items/55 (Caused by SSLError(SSLEOFError(8, 'EOF occurred in violation of protocol (_ssl.c:1007)')))",
        "HTTPSConnectionPool(host='api.example.org', port=443): Max retries exceeded with url: /v1/items/981 (Caused by SSLError(SSLEOFError(8, 'EOF occurred in violation of protocol (_ssl.c:997)')))",
        "HTTPSConnectionPool(host='*', port=#): Max retries exceeded with url: /path (Caused by SSLError(",
    ),
    (
        "Python, socket",
        "[Errno 111] Connect call failed ('127.0.0.1', 6379)",
        "[Errno 111] Connect call failed ('10.2.3.4', 6380)",
        "[Errno 111] Connect call failed ('*', #)",
    ),
    (
        "Python, disk",
        "[Errno 28] No space left on device: '/var/spool/jobs/2026/11/28/4412.json'",
        "[Errno 28] No space left on device: '/var/spool/jobs/2026/11/29/17.json'",
        "[Errno 28] No space left on device: '*'",
    ),
    (
        "Python, key",
        "KeyError: 'customer_id'",
        "KeyError: 'order_id'",
        "KeyError: '*'",
    ),
    (
        "Python, json",
        "Expecting value: line 1 column 1 (char 0)",
        "Expecting value: line 317 column 22 (char 18221)",
        "Expecting value: line # column # (char #)",
    ),
    (
        "Celery",
        "Worker exited prematurely: signal 9 (SIGKILL) Job: 7.",
        "Worker exited prematurely: signal 9 (SIGKILL) Job: 51876.",
        "Worker exited prematurely: signal 9 (SIGKILL) Job: #.",
    ),
    (
        "Celery, other signal",
        "Worker exited prematurely: signal 15 (SIGTERM) Job: 11.",
        "Worker exited prematurely: signal 15 (SIGTERM) Job: 3.",
        "Worker exited prematurely: signal 15 (SIGTERM) Job: #.",
    ),
    (
        "Celery, repr",
        "TimeLimitExceeded(300.0)",
        "TimeLimitExceeded(60)",
        "TimeLimitExceeded(#)",
    ),
    (
        "Celery, limit",
        "Task app.tasks.render[e3c18cdb-dd58-410a-9a53-3dd997353150] raised unexpected: SoftTimeLimitExceeded()",
        "Task app.tasks.render[0d9fa0d2-6c45-4972-a044-7d275c087c53] raised unexpected: SoftTimeLimitExceeded()",
        "Task app.tasks.render[#] raised unexpected: SoftTimeLimitExceeded()",
    ),
    (
        "Django",
        r#"duplicate key value violates unique constraint "auth_user_username_key" DETAIL:  Key (username)=(ada) already exists."#,
        r#"duplicate key value violates unique constraint "shop_order_number_key" DETAIL:  Key (username)=(ada) already exists."#,
        r#"duplicate key value violates unique constraint "*" DETAIL: Key (username)=(ada) already exists."#,
    ),
    (
        "Node",
        "connect ECONNREFUSED 127.0.0.1:5432",
        "connect ECONNREFUSED 10.4.0.19:6432",
        "connect ECONNREFUSED #",
    ),
    (
        "Node, DNS",
        "getaddrinfo ENOTFOUND queue-7.internal",
        "getaddrinfo ENOTFOUND queue-12.internal",
        "getaddrinfo ENOTFOUND queue-#",
    ),
    (
        "Node, undefined",
        "Cannot read properties of undefined (reading 'id')",
        "Cannot read properties of undefined (reading 'map')",
        "Cannot read properties of undefined (reading '*')",
    ),
    (
        "Node, file",
        "ENOENT: no such file or directory, open '/srv/app/.cache/8f14e45f.json'",
        "ENOENT: no such file or directory, open '/srv/app/.cache/c9f0f895.json'",
        "ENOENT: no such file or directory, open '*'",
    ),
    (
        "axios",
        "Request failed with status code 503 (attempt 2 of 5)",
        "Request failed with status code 503 (attempt 3 of 5)",
        "Request failed with status code 503 (attempt # of #)",
    ),
    (
        "axios, timeout",
        "timeout of 30000ms exceeded",
        "timeout of 5000ms exceeded",
        "timeout of # exceeded",
    ),
    (
        "BullMQ",
        "Missing lock for job 48211. moveToFinished",
        "Missing lock for job 7. moveToFinished",
        "Missing lock for job #. moveToFinished",
    ),
    (
        "Prisma",
        "P2002: Unique constraint failed on the fields: (`email`)",
        "P2002: Unique constraint failed on the fields: (`slug`)",
        "P2002: Unique constraint failed on the fields: (`*`)",
    ),
    (
        "Java, null",
        r#"java.lang.NullPointerException: Cannot invoke "com.example.Order.total()" because "order" is null"#,
        r#"java.lang.NullPointerException: Cannot invoke "com.example.User.name()" because "user" is null"#,
        r#"java.lang.NullPointerException: Cannot invoke "*" because "*" is null"#,
    ),
    (
        "Java, sockets",
        "java.net.SocketTimeoutException: connect timed out after 15000 ms to /10.0.3.4:8080",
        "java.net.SocketTimeoutException: connect timed out after 3000 ms to /10.0.9.44:8080",
        "java.net.SocketTimeoutException: connect timed out after # ms to /path",
    ),
    (
        "Hikari",
        "HikariPool-1 - Connection is not available, request timed out after 30001ms (total=10, active=10, idle=0, waiting=4)",
        "HikariPool-3 - Connection is not available, request timed out after 30018ms (total=20, active=20, idle=0, waiting=151)",
        "HikariPool-# - Connection is not available, request timed out after # (total=#, active=#, idle=#,",
    ),
    (
        "Oracle",
        "java.sql.SQLIntegrityConstraintViolationException: ORA-00001: unique constraint (SHOP.SYS_C0011) violated",
        "java.sql.SQLIntegrityConstraintViolationException: ORA-00001: unique constraint (SHOP.SYS_C0907) violated",
        "java.sql.SQLIntegrityConstraintViolationException: ORA-00001: unique constraint (SHOP.SYS_C#)",
    ),
    (
        "Oracle, other code",
        r#"java.sql.SQLSyntaxErrorException: ORA-00942: table "SHOP"."O1" does not exist"#,
        r#"java.sql.SQLSyntaxErrorException: ORA-00942: table "SHOP"."O2" does not exist"#,
        r#"java.sql.SQLSyntaxErrorException: ORA-00942: table "*" does not exist"#,
    ),
    (
        "Kafka",
        "Offset commit failed on partition orders-17 at offset 8812934: The request timed out.",
        "Offset commit failed on partition orders-3 at offset 17: The request timed out.",
        "Offset commit failed on partition orders-# at offset #: The request timed out.",
    ),
    (
        "Go, DNS",
        "dial tcp: lookup redis-2.cache.svc.cluster.local on 10.96.0.10:53: no such host",
        "dial tcp: lookup redis-11.cache.svc.cluster.local on 172.20.0.10:53: no such host",
        "dial tcp: lookup redis-# on #: no such host",
    ),
    (
        "Go, HTTP",
        r#"Post "https://hooks.example.com/t/8842": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"#,
        r#"Post "https://hooks.example.com/t/17?x=1": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"#,
        r#"Post "*": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"#,
    ),
    (
        "Go, reset",
        "read tcp 10.1.2.3:51724->93.184.216.34:443: read: connection reset by peer",
        "read tcp 10.1.9.7:40012->93.184.216.9:443: read: connection reset by peer",
        "read tcp #->#: read: connection reset by peer",
    ),
    (
        "River",
        "job 731 (kind: send_invoice) timed out after 1m0s",
        "job 99812 (kind: send_invoice) timed out after 59.998s",
        "job # (kind: send_invoice) timed out after #",
    ),
    (
        "pgx",
        "job 5: ERROR: canceling statement due to statement timeout (SQLSTATE 57014)",
        "job 88: ERROR: canceling statement due to statement timeout (SQLSTATE 57014)",
        "job #: ERROR: canceling statement due to statement timeout (SQLSTATE 57014)",
    ),
    (
        "pgx, other SQLSTATE",
        "job 5: ERROR: deadlock detected (SQLSTATE 40P01)",
        "job 88: ERROR: deadlock detected (SQLSTATE 40P01)",
        "job #: ERROR: deadlock detected (SQLSTATE 40P01)",
    ),
    (
        "PostgreSQL",
        "Process 4121 waits for ShareLock on transaction 99012; blocked by process 4377.",
        "Process 17 waits for ShareLock on transaction 4; blocked by process 23321.",
        "Process # waits for ShareLock on transaction #; blocked by process #.",
    ),
    (
        "PostgreSQL, connect",
        r#"connection to server at "db-3.internal" (10.0.7.21), port 5432 failed: FATAL:  remaining connection slots are reserved"#,
        r#"connection to server at "db-1.internal" (10.0.7.4), port 5432 failed: FATAL:  remaining connection slots are reserved"#,
        r#"connection to server at "*" (#), port # failed: FATAL: remaining connection slots are reserved"#,
    ),
    (
        "Npgsql",
        r#"23505: duplicate key value violates unique constraint "pk_invoices""#,
        r#"23505: duplicate key value violates unique constraint "pk_users""#,
        r#"23505: duplicate key value violates unique constraint "*""#,
    ),
    (
        "Laravel, query",
        "SQLSTATE[23000]: Integrity constraint violation: 1062 Duplicate entry 'ada@example.com' for key 'users_email_unique'",
        "SQLSTATE[23000]: Integrity constraint violation: 1062 Duplicate entry 'bob@example.org' for key 'users_email_unique'",
        "SQLSTATE[23000]: Integrity constraint violation: # Duplicate entry '*' for key '*'",
    ),
    (
        "Laravel, other SQLSTATE",
        "SQLSTATE[HY000] [2002] Connection refused (Connection: mysql, SQL: select * from `jobs` where `id` = 5)",
        "SQLSTATE[HY000] [2002] Connection refused (Connection: mysql, SQL: select * from `jobs` where `id` = 88123)",
        "SQLSTATE[HY000] [#] Connection refused (Connection: mysql, SQL: select * from `*` where `*` = #)",
    ),
    (
        "Guzzle",
        "Client error: `GET https://api.example.com/u/5` resulted in a `404 Not Found` response:",
        "Client error: `GET https://api.example.com/u/99812` resulted in a `404 Not Found` response:",
        "Client error: `*` resulted in a `404 Not Found` response:",
    ),
    (
        "Guzzle, other status",
        "Client error: `POST https://api.example.com/u` resulted in a `422 Unprocessable Entity` response:",
        "Client error: `POST https://api.example.com/v2/u` resulted in a `422 Unprocessable Entity` response:",
        "Client error: `*` resulted in a `422 Unprocessable Entity` response:",
    ),
    (
        "cURL",
        "cURL error 28: Operation timed out after 10001 milliseconds with 0 bytes received",
        "cURL error 28: Operation timed out after 30004 milliseconds with 11872 bytes received",
        "cURL error 28: Operation timed out after # milliseconds with # bytes received",
    ),
    (
        "cURL, other code",
        "cURL error 6: Could not resolve host: shard1.example.com",
        "cURL error 6: Could not resolve host: shard22.example.com",
        "cURL error 6: Could not resolve host: shard#.example.com",
    ),
    (
        "PHP",
        "Allowed memory size of 134217728 bytes exhausted (tried to allocate 20480 bytes)",
        "Allowed memory size of 536870912 bytes exhausted (tried to allocate 4096 bytes)",
        "Allowed memory size of # bytes exhausted (tried to allocate # bytes)",
    ),
    (
        "Elixir, DBConnection",
        "connection not available and request was dropped from queue after 2840ms. This means requests are coming in",
        "connection not available and request was dropped from queue after 197ms. This means requests are coming in",
        "connection not available and request was dropped from queue after #. This means requests are coming",
    ),
    (
        "Oban",
        r#"** (Oban.PerformError) MyApp.Mailer failed with {:error, %{status: 500, id: "3f1c"}}"#,
        r#"** (Oban.PerformError) MyApp.Mailer failed with {:error, %{status: 500, id: "a772"}}"#,
        r#"** (Oban.PerformError) MyApp.Mailer failed with {:error, %{status: 500, id: "*"}}"#,
    ),
    (
        "Elixir, match",
        "** (MatchError) no match of right hand side value: {:error, :timeout, 5012}",
        "** (MatchError) no match of right hand side value: {:error, :timeout, 30991}",
        "** (MatchError) no match of right hand side value: {:error, :timeout, #}",
    ),
    (
        "Redis",
        "MOVED 3999 10.1.0.6:6381",
        "MOVED 12182 10.1.0.9:6379",
        "MOVED #",
    ),
    (
        "Redis, memory",
        "OOM command not allowed when used memory > 'maxmemory'. script: 5e1b9f0c7a",
        "OOM command not allowed when used memory > 'maxmemory'. script: c0ffee12ab",
        "OOM command not allowed when used memory > '*'. script: #",
    ),
    (
        "Redis, replica",
        "READONLY You can't write against a read only replica. script: 5e1b9f0c7a, on @user_script:17.",
        "READONLY You can't write against a read only replica. script: c0ffee12ab, on @user_script:3.",
        "READONLY You can't write against a read only replica. script: #, on @user_script:#.",
    ),
    (
        "MongoDB",
        r#"E11000 duplicate key error collection: shop.users index: email_1 dup key: { email: "ada@example.com" }"#,
        r#"E11000 duplicate key error collection: shop.users index: email_1 dup key: { email: "bob@example.org" }"#,
        r#"E11000 duplicate key error collection: shop.users index: email_# dup key: { email: "*" }"#,
    ),
    (
        "RabbitMQ",
        "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms",
        "PRECONDITION_FAILED - delivery acknowledgement on channel 42 timed out. Timeout value used: 900000 ms",
        "PRECONDITION_FAILED - delivery acknowledgement on channel # timed out. Timeout value used: # ms",
    ),
    (
        "AWS S3",
        "An error occurred (SlowDown) when calling the PutObject operation (reached max retries: 4): Please reduce your request rate.",
        "An error occurred (SlowDown) when calling the PutObject operation (reached max retries: 10): Please reduce your request rate.",
        "An error occurred (SlowDown) when calling the PutObject operation (reached max retries: #): Please",
    ),
    (
        "AWS, Go SDK",
        "AccessDenied: Access Denied status code: 403, request id: 8XVPY5W3S3JZN0YV, host id: tMx0+Qk3bUy9/Zc8mR1aWq==",
        "AccessDenied: Access Denied status code: 403, request id: 1D2QK0F8N7RAHB43, host id: k22JfX+Qe8Lw/kPz0sYtHu==",
        "AccessDenied: Access Denied status code: 403, request id: #, host id: #",
    ),
    (
        "AWS SQS",
        "User: arn:aws:sts::123456789012:assumed-role/worker/i-0abc12de34f567890 is not authorized to perform: sqs:SendMessage",
        "User: arn:aws:sts::210987654321:assumed-role/worker/i-0fedcba9876543210 is not authorized to perform: sqs:SendMessage",
        "User: arn:aws:sts::#:assumed-role/path is not authorized to perform: sqs:SendMessage",
    ),
    (
        "Stripe",
        "No such payment_intent: 'pi_3LmjSA2eZvKYlo2C1hFJ2x'",
        "No such payment_intent: 'pi_1KkQv92eZvKYlo2Cz7PqD4'",
        "No such payment_intent: '*'",
    ),
    (
        "nginx",
        "2026/11/28 02:11:40 [error] 31#31: *569 upstream timed out (110: Operation timed out) while connecting to upstream",
        "2026/11/29 12:00:05 [error] 7#7: *1488 upstream timed out (110: Operation timed out) while connecting to upstream",
        "# [error] #: *# upstream timed out (#: Operation timed out) while connecting to upstream",
    ),
    (
        "nginx, status",
        "HTTP/1.1 504 Gateway Time-out",
        "HTTP/2 504 Gateway Time-out",
        "HTTP 504 Gateway Time-out",
    ),
    (
        "Kubernetes",
        "Back-off restarting failed container web in pod web-5d4f9c7b8-xkqzv_default(1e886b83-484e-4651-a433-877310cc63c1)",
        "Back-off restarting failed container web in pod web-7c66b9d5f4-2lq8n_default(21e77031-afa2-4910-9e59-92dd4843ccba)",
        "Back-off restarting failed container web in pod web-#(#)",
    ),
    (
        "Kubernetes, job",
        "Job has reached the specified backoff limit (6 retries, pod import-29401234-b8v2t)",
        "Job has reached the specified backoff limit (3 retries, pod import-29405678-kzzxq)",
        "Job has reached the specified backoff limit (# retries, pod import-#)",
    ),
    (
        "Kubernetes, image",
        r#"Failed to pull image "registry.example.com/app:v1.4.2": rpc error: code = Unknown desc = not found"#,
        r#"Failed to pull image "registry.example.com/web:v2.0.0": rpc error: code = Unknown desc = not found"#,
        r#"Failed to pull image "*": rpc error: code = Unknown desc = not found"#,
    ),
    (
        "Docker",
        "container 4f5a6b7c8d9e exited with exit code 137",
        "container aa00bb11cc22 exited with exit code 137",
        "container # exited with exit code 137",
    ),
    (
        "gRPC",
        "rpc error: code = Unavailable desc = transport: Error while dialing dial tcp [2001:db8::1f]:50051: i/o timeout",
        "rpc error: code = Unavailable desc = transport: Error while dialing dial tcp [2001:db8:0:7::a2]:50051: i/o timeout",
        "rpc error: code = Unavailable desc = transport: Error while dialing dial tcp [#]:#: i/o timeout",
    ),
    (
        "OpenSSL",
        "certificate verify failed: certificate has expired (_ssl.c:1123)",
        "certificate verify failed: certificate has expired (_ssl.c:997)",
        "certificate verify failed: certificate has expired (_ssl.c:#)",
    ),
    (
        "OpenAI",
        "Rate limit reached for gpt-4o in organization org-Xk29fL0aQ2 on tokens per min (TPM): Limit 30000, Used 29112, Requested 1903.",
        "Rate limit reached for gpt-4o in organization org-9PvT4m1ZrB on tokens per min (TPM): Limit 90000, Used 88121, Requested 4110.",
        "Rate limit reached for gpt-# in organization org-# on tokens per min (TPM): Limit #, Used #,",
    ),
    (
        "SMTP",
        "550 5.1.1 <ada@example.com>: Recipient address rejected: User unknown",
        "550 5.1.1 <bob.smith@example.org>: Recipient address rejected: User unknown",
        "# <user@host>: Recipient address rejected: User unknown",
    ),
    (
        "JSON",
        r#"{"error":"invalid_grant","request_id":"8f3a2b1c","status":400}"#,
        r#"{"error":"invalid_grant","request_id":"77aa01ce","status":400}"#,
        r##"{"error":"invalid_grant","request_id":"#","status":400}"##,
    ),
    (
        "JSON, other error",
        r#"{"error":"rate_limited","request_id":"8f3a2b1c","status":429}"#,
        r#"{"error":"rate_limited","request_id":"0be11a90","status":429}"#,
        r##"{"error":"rate_limited","request_id":"#","status":429}"##,
    ),
    (
        "Windows",
        r#"Could not find a part of the path 'C:\jobs\5512\in.xml'."#,
        r#"Could not find a part of the path 'D:\jobs\71\in.xml'."#,
        "Could not find a part of the path '*'.",
    ),
    (
        ".NET",
        r#"The process cannot access the file because it is being used by another process: C:\jobs\5512\in.xml"#,
        r#"The process cannot access the file because it is being used by another process: C:\jobs\71\out.xml"#,
        r#"The process cannot access the file because it is being used by another process: C:\path"#,
    ),
    (
        "German",
        "Zeitüberschreitung nach 30 s beim Aufruf von Lieferant 4711",
        "Zeitüberschreitung nach 12 s beim Aufruf von Lieferant 88",
        "Zeitüberschreitung nach # s beim Aufruf von Lieferant #",
    ),
    (
        "Japanese",
        "注文 8812 の処理に失敗しました（3 回目）",
        "注文 17 の処理に失敗しました（12 回目）",
        "注文 # の処理に失敗しました（# 回目）",
    ),
    (
        "several lines",
        "   \n\tTimeoutError: job 17 took 30s\n  at worker.rb:12",
        "TimeoutError: job 9921 took 31s\n  at worker.rb:80",
        "TimeoutError: job # took #",
    ),
];

#[test]
fn two_failures_of_one_kind_have_one_fingerprint_and_two_kinds_have_two() {
    let mut kinds = HashMap::new();
    for (system, one, other, expected) in MESSAGES {
        assert_ne!(one, other, "{system}");
        assert_eq!(fingerprint(one), *expected, "{system}");
        assert_eq!(fingerprint(other), *expected, "{system}");
        assert_eq!(kinds.insert(expected, system), None, "{system} and another have the fingerprint {expected}");
    }
}

#[test]
fn codes_that_name_a_failure_stay_and_numbers_that_look_alike_go() {
    for (message, expected) in [
        ("HTTP 503", "HTTP 503"),
        ("HTTP/1.1 404 Not Found", "HTTP 404 Not Found"),
        ("statusCode=502", "statusCode=502"),
        ("the status is 404", "the status is 404"),
        ("exit code 137 after 12 s", "exit code 137 after # s"),
        ("error[E0382]: borrow of moved value", "error[E0382]: borrow of moved value"),
        ("error TS2304: no name", "error TS2304: no name"),
        ("SQLSTATE 42P01", "SQLSTATE 42P01"),
        ("MongoServerError: E11000 duplicate", "MongoServerError: E11000 duplicate"),
        ("OAuth2Error: invalid_grant", "OAuth2Error: invalid_grant"),
        ("django.http.response.Http404", "django.http.response.Http404"),
        ("Http500: no answer", "Http500: no answer"),
        ("upstream says HTTP_429", "upstream says HTTP_429"),
        ("StatusCode502 from upstream", "StatusCode502 from upstream"),
        ("cx_Oracle.DatabaseError (ORA-12541) no listener", "cx_Oracle.DatabaseError (ORA-12541) no listener"),
        ("failed with ORA-00060 while waiting", "failed with ORA-00060 while waiting"),
        ("deadlock detected (40P01)", "deadlock detected (40P01)"),
        ("the base table is not there (42S02)", "the base table is not there (42S02)"),
        ("SQL0911N  The transaction was rolled back", "SQL0911N The transaction was rolled back"),
        ("DB2 SQL Error: SQLCODE=-911, SQLSTATE=40001", "DB# SQL Error: SQLCODE=-911, SQLSTATE=40001"),
        (r#"OperationalError: (2003, "Can't connect")"#, r#"OperationalError: (2003, "*")"#),
        (r#"OperationalError(1045, "Access denied")"#, r#"OperationalError(1045, "*")"#),
        ("AADSTS50076: a second factor is needed", "AADSTS50076: a second factor is needed"),
        ("S3Timeout in bucket 12", "S3Timeout in bucket #"),
        ("Http404123 and job_404 and worker404", "Http# and job_# and worker#"),
        ("code17 of 30, QRP12345 and 40X01", "code# of #, QRP# and #"),
        ("took 503 ms", "took # ms"),
        ("code 482913", "code #"),
        ("decoded 17 bytes", "decoded # bytes"),
        ("error: 17 rows", "error: # rows"),
        ("order ORD-12345 is gone", "order ORD-# is gone"),
        ("it's the users' own; O'Brien can't", "it's the users' own; O'Brien can't"),
        ("", ""),
        (" \n\t\r\n ", ""),
    ] {
        assert_eq!(fingerprint(message), expected, "{message}");
    }
}

#[test]
fn a_fingerprint_is_cut_between_two_words_and_a_long_line_takes_no_longer_per_byte() {
    let words = "many words and more ".repeat(20);
    assert_eq!(fingerprint(&words), words[..99].trim_end());
    for piece in ["x", "'", "\"x ", "`", "/", "a/", "1/", "a::", "1, ", "a@", "a.", "x=", "日", " ", "\\"] {
        let started = Instant::now();
        let line = piece.repeat((1 << 20) / piece.len());
        assert!(fingerprint(&line).chars().count() <= 100, "{piece}");
        assert!(started.elapsed() < Duration::from_secs(5), "{piece} took {:?}", started.elapsed());
    }
}

/// Pieces of messages, and what rules look at.
fn piece() -> impl Strategy<Value = String> {
    #[rustfmt::skip] // a list
    let pieces = vec![
        " ", "  ", ":", ": ", ", ", ",", ".", "-", "_", "+", "/", "\\", "#", "*", "\"", "'", "`", "(", ")", "[", "]",
        "{", "@", "://", "=", "==", "Zc8mR1aWqX+/9=", "\t", "\u{1b}[31m", "é", "日本", "…", "‘", "٣", "\n", "\r", "1",
        "42", "503", "503 Service", "404 Not Found", "2026-11-28T21:31:11Z", "3d9177d3-6c45-4972-a044-7d275c087c53",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV", "deadbeef", "0x7f", "10.0.0.1:5432", "fe80::1", "::", "worker7", "E1234",
        "ORA-00001", "ORA-12541 ", "Http404", "HTTP_", "err", "40P01", "SQL0911N", "S3Timeout", "(2003, \"", "23505", "P2002", "HTTP", "HTTP/1.1", "status", "code", "errno", "Error", "Error(", "is", "of",
        "exitCode", "user@host", "bob@example.com", "https", "https://url", "https://x.com/a/b", "/path",
        "/a/b/c.rb:12", "C:\\path", "C:", "'*'", "word", "a", "e", "x", "5s", "50%", "OAuth2Error", "JSON",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ];
    prop_oneof![
        8 => proptest::sample::select(pieces).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[a-zA-Z0-9]{1,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_fingerprint_of_a_fingerprint_is_itself(pieces in proptest::collection::vec(piece(), 0..40)) {
        let once = fingerprint(&pieces.concat());
        prop_assert!(once.chars().count() <= 100 && !once.contains('\n'));
        prop_assert_eq!(fingerprint(&once), once);
    }
}

#[test]
fn of_a_long_line_the_beginning_is_read_and_no_part_of_it_for_each_of_its_slashes() {
    assert_eq!(fingerprint(&"a@b/".repeat(20_000_000)), "user@host/");
    let cut = format!("{}é tail", "1 ".repeat(4_999) + "x");
    assert_eq!(fingerprint(&cut), "# x");
}
