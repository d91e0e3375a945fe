use std::ffi::CStr;

use pgrx::direct_function_call;
use pgrx::prelude::*;

use crate::postgres::advisory::AdvisoryLocks;
use crate::postgres::error::{Result, error, spi};
use crate::postgres::prepared::prepared;
use crate::postgres::read::read_prepared;
use crate::postgres::signals::Signals;
use crate::postgres::statements::PreparedStatements;

/// The state of the caller's session that code of another role could use or change: cursors, prepared statements, large object
/// descriptors, temporary objects, advisory locks, modes of constraints, signals. SECURITY.md has the table.
pub struct Session {
    /// The role whose code runs.
    owner: pg_sys::Oid,
    /// The caller's cursors, with their status and strategy.
    portals: Vec<(pg_sys::Portal, pg_sys::PortalStatus::Type, pg_sys::PortalStrategy::Type)>,
    statements: PreparedStatements,
    advisory_locks: AdvisoryLocks,
    signals: Signals,
}

unsafe extern "C-unwind" {
    /// PostgreSQL's, in libpq/be-fsstubs.h, which pgrx does not bind.
    fn AtEOXact_LargeObject(is_commit: bool);
}

const CURSORS: &str = "SELECT name FROM pg_catalog.pg_cursors";

const TEMPORARY: &str = "
    SELECT pg_catalog.pg_describe_object(classid, objid, objsubid) FROM pg_catalog.pg_depend
    WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
      AND refobjid OPERATOR(pg_catalog.=) $1
    ORDER BY classid, objid";

impl Session {
    /// Hides the caller's session from code of `owner` until `show`: a cursor can be neither found, fetched from nor closed, a
    /// prepared statement not be read, an advisory lock not be released. Errors: 42501 (what cannot be hidden, with the
    /// statement that closes it).
    pub fn hide(owner: pg_sys::Oid) -> Result<Session> {
        if let Some(object) = temporary_object()? {
            return Err(error(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("code of role {} would find the temporary {object} of this session", name(owner)),
                "DISCARD TEMP".into(),
            ));
        }
        if let Some(descriptor) = descriptors().first() {
            return Err(error(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("code of role {} could use the open large object descriptor {descriptor}", name(owner)),
                format!("SELECT lo_close({descriptor})"),
            ));
        }
        let (cursors, statements, advisory_locks) = (cursors()?, PreparedStatements::hide()?, AdvisoryLocks::take());
        let mut portals = Vec::new();
        for portal in cursors {
            // SAFETY: the portal is one of this session's; `show` gives back what is changed, also on an error. An active portal
            // can neither be run nor dropped; of a utility's, WHERE CURRENT OF cannot tell the row; one that is not visible is
            // not in pg_cursors.
            unsafe {
                portals.push((portal, (*portal).status, (*portal).strategy));
                (*portal).status = pg_sys::PortalStatus::PORTAL_ACTIVE;
                (*portal).strategy = pg_sys::PortalStrategy::PORTAL_UTIL_SELECT;
                (*portal).visible = false;
            }
        }
        Ok(Session { owner, portals, statements, advisory_locks, signals: Signals::now() })
    }

    /// Gives the caller's cursors their status back, and the session its prepared statements, advisory locks and signals.
    pub fn show(&self) {
        self.signals.give_back();
        self.statements.show();
        self.advisory_locks.give_back();
        for (portal, status, strategy) in &self.portals {
            // SAFETY: a portal that is active cannot have been dropped.
            unsafe {
                (**portal).status = *status;
                (**portal).strategy = *strategy;
                (**portal).visible = true;
            }
        }
    }

    /// Closes what the owner's code has left open in the session. Runs as the owner. Errors: 42501 (it cannot be closed).
    pub fn clean(&self) -> Result<()> {
        // PostgreSQL refuses to defer triggers here, but SET CONSTRAINTS itself would last.
        Spi::run("SET CONSTRAINTS ALL IMMEDIATE").map_err(spi)?;
        for portal in cursors()? {
            // SAFETY: opened since `hide`, and not running, since the code that opened it has ended.
            unsafe {
                if (*portal).portalPinned {
                    pg_sys::UnpinPortal(portal);
                }
                pg_sys::PortalDrop(portal, false);
            }
        }
        // SAFETY: closes all large object descriptors of the transaction; the caller had none.
        unsafe { AtEOXact_LargeObject(true) };
        if let Some(object) = temporary_object()? {
            return Err(error(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!(
                    "code of role {} has created the temporary {object}, which would stay in this session",
                    name(self.owner)
                ),
                "SELECT tgrelid::regclass, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal".into(),
            ));
        }
        Ok(())
    }
}

/// The name of a role in double quotes.
fn name(role: pg_sys::Oid) -> String {
    // SAFETY: GetUserNameFromId returns a C string, or null for a role that is gone.
    let name = unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { role.to_u32().to_string() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    };
    format!("\"{name}\"")
}

/// The cursors of this session, except running ones, which cannot be used meanwhile.
fn cursors() -> Result<Vec<pg_sys::Portal>> {
    let names: Vec<String> = Spi::connect(|client| {
        client
            .select(prepared(client, CURSORS, &[])?, None, &[])?
            .filter_map(|row| row.get(1).transpose())
            .collect::<spi::Result<_>>()
    })
    .map_err(spi)?;
    let portal = |name: &String| {
        let name = std::ffi::CString::new(name.as_str()).unwrap_or_default();
        // SAFETY: looks a C string up; the portal that it finds is there.
        unsafe {
            let portal = pg_sys::GetPortalByName(name.as_ptr());
            (!portal.is_null() && (*portal).status != pg_sys::PortalStatus::PORTAL_ACTIVE).then_some(portal)
        }
    };
    Ok(names.iter().filter_map(portal).collect())
}

/// An object in the session's temporary schema, described.
fn temporary_object() -> Result<Option<String>> {
    let (mut schema, mut toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: writes two oids.
    unsafe { pg_sys::GetTempNamespaceState(&mut schema, &mut toast) };
    if schema == pg_sys::InvalidOid {
        return Ok(None);
    }
    read_prepared::<String>(TEMPORARY, &[schema.into()])
}

/// The large object descriptors that are open.
fn descriptors() -> Vec<i32> {
    let is_open = |descriptor: &i32| {
        let descriptor = *descriptor;
        PgTryBuilder::new(move || {
            // SAFETY: lo_tell64 takes an integer. Its error holds nothing that only an abort would give back.
            unsafe { direct_function_call::<i64>(pg_sys::be_lo_tell64, &[descriptor.into_datum()]) };
            true
        })
        .catch_when(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, |_| false)
        .execute()
    };
    (0..most_descriptors()).filter(is_open).collect()
}

/// As many large objects at most has this transaction open: PostgreSQL keeps a pointer for each in a memory context of this name
/// (`CreateFSContext` and `newLOfd` in be-fsstubs.c).
fn most_descriptors() -> i32 {
    // SAFETY: walks the children of a context that lives as long as the process.
    unsafe {
        let mut child = (*pg_sys::TopMemoryContext).firstchild;
        while !child.is_null() {
            if !(*child).name.is_null() && CStr::from_ptr((*child).name) == c"Filesystem" {
                let pointers = pg_sys::MemoryContextMemAllocated(child, true) as usize / size_of::<*const ()>();
                return pointers.try_into().unwrap_or(i32::MAX);
            }
            child = (*child).nextchild;
        }
    }
    0
}
