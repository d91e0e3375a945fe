//! The servers of Citus: the coordinator, where runs and jobs are, and the nodes that have shards.

use std::ffi::CStr;

use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::postgres::now::one_now;

/// Whether Citus is in this database, which then has this catalog.
fn has_catalog(name: &CStr) -> bool {
    // SAFETY: a look-up in the system cache.
    unsafe { pg_sys::get_relname_relid(name.as_ptr(), pg_sys::PG_CATALOG_NAMESPACE.into()) != pg_sys::InvalidOid }
}

/// Whether this server is the coordinator of others.
pub fn has_nodes() -> Result<bool> {
    const NODES: &str = "
        SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_node WHERE groupid OPERATOR(pg_catalog.<>) 0)
           AND EXISTS (SELECT FROM pg_catalog.pg_dist_local_group WHERE groupid OPERATOR(pg_catalog.=) 0)";
    Ok(has_catalog(c"pg_dist_node") && one_now::<bool>(NODES, &[])? == Some(true))
}

/// Refuses what is done on the coordinator alone: other nodes do not have its locks, its history, or its ledger. Errors: 55000.
pub fn refuse_on_worker_node(action: &str) -> Result<()> {
    const IS_ONE: &str =
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_local_group WHERE groupid OPERATOR(pg_catalog.<>) 0)";
    const COORDINATOR: &str = "
        SELECT pg_catalog.concat(', ', nodename, ':', nodeport) FROM pg_catalog.pg_dist_node
        WHERE groupid OPERATOR(pg_catalog.=) 0 ORDER BY noderole LIMIT 1";
    if !has_catalog(c"pg_dist_local_group") || one_now::<bool>(IS_ONE, &[])? != Some(true) {
        return Ok(());
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("cannot {action} on a worker node of Citus"),
        format!("connect to the coordinator{}", one_now::<String>(COORDINATOR, &[])?.unwrap_or_default()),
    ))
}

/// Asks each node in one round trip, this server too if it is one: a FROM item with `nodeid`, `node`, `is_here`, `success` and `result`, the
/// answer to `command`, an expression of a statement that returns one value. It goes in the current role over connections of its own. What the
/// statement names is looked up in that role's search path there.
pub fn asked(command: &str) -> String {
    format!(
        "(SELECT a.nodeid, format('%s:%s', n.nodename, n.nodeport) AS node, n.groupid = 0 AS is_here, a.success, a.result
          FROM run_command_on_all_nodes({command}) a JOIN pg_dist_node n USING (nodeid)) node"
    )
}

/// The shards of the tables in `used (oid)`: a FROM item with `leaf`, the table, and `name`, which every node understands.
pub const SHARDS: &str = "
    (SELECT c.oid AS leaf, CASE relnamespace WHEN 'public'::regnamespace THEN 'public.' ELSE '' END || shard_name(c.oid, shardid) AS name
     FROM used JOIN pg_class c ON c.oid = used.oid JOIN pg_dist_shard ON logicalrelid = c.oid) shard";
