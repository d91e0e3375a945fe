use backlog_cleanup_report::counted;

use crate::extension;
use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::rules::policy::{Cutoff, Policy};
use crate::target::Target;

/// Finds partitions by time that are older than all that a run leaves there: to drop one takes no time, and leaves no dead rows.
pub fn expired(target: &Target) -> Result<Vec<Problem>> {
    let policies = Policy::all(target)?;
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
                WHERE p.partrelid = $1 AND p.partstrat = 'r' AND p.partnatts = 1 AND p.partattrs[0] = $2 AND $2 > 0) parts
          WHERE bound <= ({})",
        failed_at.sql_type,
        target.as_failed_at(cutoff)
    );
    let arguments = [target.table.oid.into(), failed_at.number.into()];
    let found = extension::as_owner(|| read_one::<Vec<String>>(&partitions, &arguments))?.unwrap_or_default();
    let [first, others @ ..] = &found[..] else { return Ok(Vec::new()) };
    let others = match others.len() {
        0 => String::new(),
        others => format!(" and {}", counted(others as i64, "other partition")),
    };
    let is_all = target.account_column.is_none() && target.status.is_none() && target.meets.is_none();
    let besides = if is_all { "" } else { " with their rows out of scope" };
    let detail = format!(
        "runs keep no row in scope of partition {first}{others}; DROP TABLE takes no time and leaves no dead rows: \
         decide whether such partitions may go{besides}"
    );
    Ok(vec![Problem { status: Status::Ok, detail, fix: None }])
}

/// Before this, no row stays under a policy; `None` if some may.
fn of_all_rows(policy: &Policy) -> Option<&Cutoff> {
    let cutoff = if policy.keep == 0 { Some(&policy.cutoff) } else { policy.keep_cutoff.as_ref() };
    cutoff.filter(|_| policy.is_enabled)
}
