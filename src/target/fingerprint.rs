use backlog_cleanup_report::fingerprint;
use pgrx::prelude::*;

/// Returns the fingerprint of a failure's message; `backlog_cleanup_report::fingerprint` says what it is. Indexes and policies
/// hold fingerprints: it may not change in a release without a REINDEX.
#[pg_extern(immutable, strict, parallel_safe)]
fn backlog_cleanup_fingerprint(message: &str) -> String {
    fingerprint(message)
}
