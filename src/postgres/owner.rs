use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;

use crate::postgres::acting::{acting_as, who};
use crate::postgres::alike::see_alike;
use crate::postgres::constraints::keeping_modes_of_constraints;
use crate::postgres::discretion::discreetly;
use crate::postgres::error::{Result, spi};
use crate::postgres::names::naming;
use crate::postgres::session::Session;
use crate::postgres::settings::{restricted, set_local_for_all};
use crate::postgres::subtransaction::{exactly, look};
use crate::postgres::table::Table;

/// Reads a table as its owner, in a subtransaction that is rolled back: code of the owner leaves nothing behind, and the
/// table's lock is released. Errors: those of `as_owner_of`.
pub fn reading_as_owner_of<T>(table: &Table, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let reading = || look(|| switched(table, work));
    exactly(|| protected(table, || keeping_modes_of_constraints(reading), |_| Ok(())))
}

/// Does `work` on a table as its owner. Its statements name nothing but the table and `Table::named`. Locks the table first, so that it keeps its owner and its name. The caller's session
/// is hidden from code of another owner, and unchanged afterwards. The caller has called `defer_nothing`. Errors: 40001
/// (another session has changed or dropped the table since it was looked up), 42501 (something of the session cannot be
/// hidden, or the owner's code has changed it).
pub fn as_owner_of<T>(table: &Table, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let work = || {
        // What `changes` counts.
        set_local_for_all("track_counts", "on");
        work()
    };
    let clean = |session: &Session| acting_as(table.owner, &table.search_path, || session.clean());
    exactly(|| protected(table, || switched(table, work), clean))
}

/// Does `work`, and then `after`, while the caller's session is hidden from code of the table's owner.
fn protected<T>(
    table: &Table,
    work: impl FnOnce() -> Result<T>,
    after: impl FnOnce(&Session) -> Result<()>,
) -> Result<T> {
    if is_at_home(table.owner) {
        return work();
    }
    let session = Session::hide(table.owner)?;
    PgTryBuilder::new(AssertUnwindSafe(|| {
        restricted(|| {
            let done = work()?;
            after(&session)?;
            Ok(done)
        })
    }))
    .finally(|| session.show())
    .execute()
}

fn switched<T>(table: &Table, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let work = || {
        see_alike()?;
        table.hold().and_then(|()| naming(table.named_with_it(), work))
    };
    discreetly(table.owner, || acting_as(table.owner, &table.search_path, work))
}

/// Whether code of `owner` already runs in the owner's session, or inside `as_owner_of`.
fn is_at_home(owner: pg_sys::Oid) -> bool {
    let (user, context) = who();
    // SAFETY: only reads whose session it is.
    let session_user = unsafe { pg_sys::GetSessionUserId() };
    user == owner && (session_user == owner || context & pg_sys::SECURITY_RESTRICTED_OPERATION as i32 != 0)
}

/// Fires deferred triggers immediately for the rest of the transaction. Triggers that the caller has queued fire now, as the
/// caller; a run's fire within its statements, as the table's owner, instead of at commit as the caller.
pub fn defer_nothing() -> Result<()> {
    Spi::run("SET CONSTRAINTS ALL IMMEDIATE").map_err(spi)
}
