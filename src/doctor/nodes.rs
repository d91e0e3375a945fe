//! What is wrong on the nodes of Citus, each asked once per check.

use pgrx::spi::quote_literal;

use crate::obstacles::problem::{Problem, Status, problems};
use crate::obstacles::used::on_tables;
use crate::postgres::acting::acting_as;
use crate::postgres::error::Result;
use crate::postgres::nodes::{SHARDS, asked, has_nodes};
use crate::postgres::read::read_one;
use crate::target::Target;
use crate::target::leaf::leaves;

/// Finds nodes that do not answer, and owners as whom no run can reach them: Citus connects to the nodes as the owner of the table.
pub fn answer(target: &Target) -> Result<Vec<Problem>> {
    if !has_nodes()? {
        return Ok(Vec::new());
    }
    let silent = format!(
        "SELECT 'fail', format('node %s does not answer, and runs fail that need a shard of it: %s', node, result), NULL
         FROM {} WHERE NOT success ORDER BY 2",
        asked("'SELECT 1'")
    );
    let mut found = problems(&silent, &[])?;
    let mut owners: Vec<_> =
        leaves(target)?.iter().filter(|leaf| leaf.is_distributed).map(|leaf| leaf.table.owner).collect();
    owners.sort_unstable_by_key(|owner| owner.to_u32());
    owners.dedup();
    for owner in owners {
        found.extend(problems(NO_LOGIN, &[owner.into()])?);
        // A node that answers nobody has been said.
        if found.is_empty() {
            found.extend(unreachable_for(owner)?);
        }
    }
    Ok(found)
}

const NO_LOGIN: &str = "
    SELECT 'fail', format('role \"%s\" owns a distributed table and may not log in, so Citus cannot connect to the nodes as this role; '
                          'decide, and type ALTER ROLE %I LOGIN', rolname, rolname), NULL
    FROM pg_roles WHERE oid = $1 AND NOT rolcanlogin";

fn unreachable_for(owner: pgrx::pg_sys::Oid) -> Result<Vec<Problem>> {
    let refused = format!(
        "SELECT format('node %s cannot be reached as role \"%s\", which owns a distributed table: %s; '
                       'decide how it connects without a password prompt: pg_hba.conf there, or pg_dist_authinfo here', node, CURRENT_USER, result)
         FROM {} WHERE NOT success ORDER BY 1 LIMIT 1",
        asked("'SELECT 1'")
    );
    let detail = acting_as(owner, "pg_catalog, pg_temp", || read_one::<String>(&refused, &[]))?;
    Ok(detail.map(|detail| Problem { status: Status::Fail, detail, fix: None }).into_iter().collect())
}

/// Finds tables whose shards have many dead rows; `dead_rows` of `vacuum.rs` sees the empty tables of the coordinator.
pub fn dead_rows(target: &Target) -> Result<Vec<Problem>> {
    const ASK: &str = "
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                   'leaf', leaf, 'dead', pg_catalog.pg_stat_get_dead_tuples(shard), 'live', pg_catalog.pg_stat_get_live_tuples(shard))), '[]')
        FROM (SELECT leaf, pg_catalog.to_regclass(name)::pg_catalog.oid AS shard
              FROM ROWS FROM (pg_catalog.unnest(%L::pg_catalog.oid[]), pg_catalog.unnest(%L::pg_catalog.text[])) AS known (leaf, name)) shards
        WHERE shard IS NOT NULL";
    if !is_distributed(target)? {
        return Ok(Vec::new());
    }
    let of_shards = format!(
        "SELECT 'warn', format('the shards of %s have %s dead and %s live rows', leaf::regclass, sum(dead), sum(live)),
                format('VACUUM (ANALYZE) %s', leaf::regclass)
         FROM {}, jsonb_to_recordset(CASE WHEN success THEN result::jsonb END) AS said (leaf oid, dead bigint, live bigint)
         GROUP BY leaf HAVING sum(dead) > 10000 AND sum(dead) > sum(live) / 2
         ORDER BY 2",
        asked(&format!("(SELECT format({}, array_agg(leaf), array_agg(name)) FROM {SHARDS})", quote_literal(ASK)))
    );
    problems(&on_tables(&of_shards), &[vec![target.table.oid].into()])
}

/// Finds nodes whose autovacuum is off.
pub fn autovacuum(target: &Target) -> Result<Vec<Problem>> {
    const OFF: &str = "
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('what', pg_catalog.format(
                   '%s is off; decide, and type there ALTER SYSTEM SET %s = on', name, name))), '[]')
        FROM pg_catalog.pg_settings
        WHERE name OPERATOR(pg_catalog.=) ANY ('{autovacuum,track_counts}') AND setting OPERATOR(pg_catalog.=) 'off'";
    if is_distributed(target)? { said(OFF) } else { Ok(Vec::new()) }
}

/// Finds old transactions on other nodes.
pub fn transactions() -> Result<Vec<Problem>> {
    const OLD: &str = "
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('what', pg_catalog.format('%s since %s', what, pg_catalog.to_char(
                   pg_catalog.timezone('UTC', since), 'YYYY-MM-DD HH24:MI UTC')), 'pid', pid, 'fix', fix)), '[]')
        FROM (SELECT pg_catalog.format('session %s of %I has been in a transaction', pid, usename), xact_start, pid, NULL
              FROM pg_catalog.pg_stat_activity
              WHERE backend_type OPERATOR(pg_catalog.=) 'client backend'
              UNION ALL
              SELECT pg_catalog.format('prepared transaction %s of database %I has been open', gid, database), prepared, NULL,
                     CASE WHEN pg_catalog.starts_with(gid, 'citus_') THEN 'SELECT recover_prepared_transactions()' END
              FROM pg_catalog.pg_prepared_xacts) open (what, since, pid, fix)
        WHERE since OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) interval '1 hour')";
    if has_nodes()? { said(OLD) } else { Ok(Vec::new()) }
}

fn is_distributed(target: &Target) -> Result<bool> {
    Ok(has_nodes()? && leaves(target)?.iter().any(|leaf| leaf.is_distributed))
}

/// What each other node says with a statement that returns documents with `what` and `fix`, or `pid`, a process to end.
fn said(statement: &str) -> Result<Vec<Problem>> {
    let said = format!(
        "SELECT 'warn', format('on node %s, %s', node, what),
                -- Citus ends the process of another node by a number that carries the node's.
                coalesce(fix, format('SELECT pg_terminate_backend(%s)', nodeid * 10000000000 + pid))
         FROM {}, jsonb_to_recordset(CASE WHEN success AND NOT is_here THEN result::jsonb END) AS said (what text, pid bigint, fix text)
         ORDER BY 2",
        asked(&quote_literal(statement))
    );
    problems(&said, &[])
}
