use std::cell::RefCell;
use std::hash::BuildHasher;

use backlog_cleanup_report::fingerprint;
use pgrx::prelude::*;

use crate::spread::Spread;

/// Returns the fingerprint of a failure's message; `backlog_cleanup_report::fingerprint` says what it is. Indexes and policies
/// hold fingerprints: it may not change in a release without a REINDEX.
#[pg_extern(immutable, strict, parallel_safe)]
fn backlog_cleanup_fingerprint(message: &str) -> String {
    match message.len() > LONGEST_KNOWN {
        true => fingerprint(message),
        false => KNOWN.with_borrow_mut(|known| known.fingerprint(message)),
    }
}

/// So many messages are remembered with their fingerprints, of at most so many bytes: failures of one cause often say the same. More than a
/// thousand causes there are seldom; each has a place, and few share one.
const KNOWN_AT_ONCE: usize = 8_192;
const LONGEST_KNOWN: usize = 500;

/// Messages that came more than once. Where each has an id of its own, what is known would not stay in the processor's caches: such a message
/// leaves nothing but its hash.
struct Known {
    spread: Spread,
    /// Of the last message of each place.
    hashes: Vec<u64>,
    /// A message and its fingerprint.
    places: Vec<(String, String)>,
}

impl Known {
    fn fingerprint(&mut self, message: &str) -> String {
        let hash = self.spread.hash_one(message);
        let place = hash as usize % KNOWN_AT_ONCE;
        if self.hashes[place] != hash {
            self.hashes[place] = hash;
            return fingerprint(message);
        }
        let (of, its) = &mut self.places[place];
        if of != message {
            message.clone_into(of);
            *its = fingerprint(message);
        }
        its.clone()
    }
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known {
        spread: Spread::default(),
        hashes: vec![0; KNOWN_AT_ONCE],
        places: vec![Default::default(); KNOWN_AT_ONCE],
    });
}
