use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use backlog_cleanup_report::fingerprint;
use pgrx::prelude::*;

use crate::postgres::error::Result;
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::table::Table;

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

/// The name of that function, qualified and quoted, and its oid, or `None` if the owner of the table may not call it: statements on the
/// table run as its owner.
pub fn callable_by_owner_of(table: &Table) -> Result<Option<(String, pg_sys::Oid)>> {
    const FUNCTION: &str = "
        SELECT format('%I.%I', n.nspname, p.proname), p.oid
        FROM pg_extension e
        JOIN pg_namespace n ON n.oid = e.extnamespace
        JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = 'backlog_cleanup_fingerprint'
        WHERE e.extname = 'backlog_cleanup' AND p.proargtypes = ARRAY['text'::regtype::oid]::oidvector
          AND has_schema_privilege($1, n.oid, 'USAGE') AND has_function_privilege($1, p.oid, 'EXECUTE')";
    let found = rows_now(FUNCTION, &[table.owner.into()], |row| {
        Ok((row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or(pg_sys::InvalidOid)))
    })?;
    Ok(found.into_iter().next())
}

/// The statement that lets the owner of the table call it.
pub fn grant_to_owner_of(table: &Table) -> Result<String> {
    const GRANT: &str = "
        SELECT CASE WHEN has_schema_privilege($1, n.oid, 'USAGE')
                    THEN format('GRANT EXECUTE ON FUNCTION %I.%I(text) TO %I', n.nspname, p.proname, pg_get_userbyid($1))
                    ELSE format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, pg_get_userbyid($1)) END
        FROM pg_extension e
        JOIN pg_namespace n ON n.oid = e.extnamespace
        JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = 'backlog_cleanup_fingerprint'
        WHERE e.extname = 'backlog_cleanup' AND p.proargtypes = ARRAY['text'::regtype::oid]::oidvector";
    Ok(one_now::<String>(GRANT, &[table.owner.into()])?.unwrap_or_default())
}
