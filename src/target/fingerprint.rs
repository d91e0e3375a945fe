use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use backlog_cleanup_report::fingerprint;
use pgrx::prelude::*;

/// Returns the fingerprint of a failure's message; `backlog_cleanup_report::fingerprint` says what it is. Indexes and policies
/// hold fingerprints: it may not change in a release without a REINDEX.
#[pg_extern(immutable, strict, parallel_safe)]
fn backlog_cleanup_fingerprint(message: &str) -> String {
    if message.len() > LONGEST_KNOWN {
        return fingerprint(message);
    }
    KNOWN.with_borrow_mut(|(hash, known)| {
        let (of, its) = &mut known[hash.hash_one(message) as usize % KNOWN_AT_ONCE];
        if of != message {
            message.clone_into(of);
            *its = fingerprint(message);
        }
        its.clone()
    })
}

/// So many messages are remembered with their fingerprints, of at most so many bytes: failures of one cause say the same.
const KNOWN_AT_ONCE: usize = 1_024;
const LONGEST_KNOWN: usize = 500;

thread_local! {
    static KNOWN: RefCell<(RandomState, Vec<(String, String)>)> =
        RefCell::new((RandomState::new(), vec![Default::default(); KNOWN_AT_ONCE]));
}
