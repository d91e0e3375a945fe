use backlog_cleanup_report::counted;

use crate::extension;
use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::rules::policy::{Cutoff, Policy};
use crate::target::Target;

/// So many partitions are named.
const NAMED: usize = 5;

/// Finds partitions by time that are older than all that policies keep there: to drop one takes no time, and leaves no dead rows. Says
/// nothing where a removal is more than that: a ledger has it, a trigger or a rule fires, rows are referenced, or are on another server.
pub fn expired(target: &Target) -> Result<Vec<Problem>> {
    let policies = Policy::all(target)?;
    if target.ledger.is_some() {
        return Ok(Vec::new());
    }
    let Some(cutoff) = policies.iter().map(of_all_rows).min().flatten().and_then(Cutoff::instant) else {
        return Ok(Vec::new());
    };
    let failed_at = &target.failed_at;
    let partitions = format!(
        r"SELECT array_agg(oid::regclass::text ORDER BY bound)
          FROM (SELECT c.oid, substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''')::{} AS bound
                FROM pg_partitioned_table p
                JOIN pg_inherits i ON i.inhparent = p.partrelid AND NOT i.inhdetachpending
                JOIN pg_class c ON c.oid = i.inhrelid
                WHERE p.partrelid = $1 AND p.partstrat = 'r' AND p.partnatts = 1 AND p.partattrs[0] = $2 AND $2 > 0 AND c.relkind = 'r') parts
          WHERE bound <= ({})
            AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid IN ($1, parts.oid) AND NOT tgisinternal AND tgtype & 8 <> 0) -- TRIGGER_TYPE_DELETE
            AND NOT EXISTS (SELECT FROM pg_rewrite WHERE ev_class IN ($1, parts.oid) AND ev_type = '4')
            AND NOT EXISTS (SELECT FROM pg_constraint WHERE confrelid IN ($1, parts.oid) AND contype = 'f')",
        failed_at.sql_type,
        target.as_failed_at(cutoff)
    );
    let arguments = [target.table.oid.into(), failed_at.number.into()];
    let found = extension::as_owner(|| read_one::<Vec<String>>(&partitions, &arguments))?.unwrap_or_default();
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let (named, others) = found.split_at(found.len().min(NAMED));
    let others = match others.len() {
        0 => String::new(),
        others => format!(" and {}", counted(others as i64, "other partition")),
    };
    let is_all = target.account_column.is_none() && target.status.is_none() && target.meets.is_none();
    let detail = format!(
        "policies keep no row in scope of {}{others}; DROP TABLE takes no time and leaves no dead rows: decide whether such partitions may go{}",
        named.join(", "),
        if is_all { "" } else { " with their rows out of scope" }
    );
    Ok(vec![Problem { status: Status::Ok, detail, fix: None }])
}

/// Before this, no row stays under a policy; `None` if some may.
fn of_all_rows(policy: &Policy) -> Option<&Cutoff> {
    let cutoff = if policy.keep == 0 { Some(&policy.cutoff) } else { policy.keep_cutoff.as_ref() };
    cutoff.filter(|_| policy.is_enabled)
}
