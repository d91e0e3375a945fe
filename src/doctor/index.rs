use std::rc::Rc;

use backlog_cleanup_report::Mode;
use serde_json::Value;

use crate::obstacles::problem::{Problem, Status, problems};
use crate::obstacles::used::{on_changed, on_tables};
use crate::postgres::error::Result;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::stream::stream_writing;
use crate::rank::index::{self, NotServed};
use crate::rank::one_pass::through_index_alone;
use crate::rules::Rules;
use crate::rules::matching::Policies;
use crate::rules::selection::Selection;
use crate::target::Target;
use crate::target::leaf::{Leaf, leaves};

const INVALID: &str = "
    SELECT 'warn', format('index %s is invalid%s', indexrelid::regclass,
                          CASE WHEN relkind = 'I' THEN ': attach an index of every partition' END),
           CASE WHEN relkind <> 'I' THEN format('REINDEX INDEX CONCURRENTLY %s', indexrelid::regclass) END
    FROM pg_index JOIN used ON indrelid = used.oid JOIN pg_class c ON c.oid = indexrelid
    WHERE NOT indisvalid";

/// Checks that the partial index exists, and that ranking reads it alone.
pub fn partial(target: &Target) -> Result<Vec<Problem>> {
    let remark = |detail: String| Ok(vec![Problem { status: Status::Ok, detail, fix: None }]);
    if target.table.is_foreign() {
        return remark("the table's own server has its indexes".into());
    }
    if let Some(NotServed { reason, .. }) = index::not_served(target)? {
        if index::exists(target, false)? {
            let detail = format!("{reason}; there is such an index: decide whether it is to go");
            return Ok(vec![Problem { status: Status::Warn, detail, fix: None }]);
        }
        return remark(format!("{reason}; each run scans the whole table"));
    }
    let invalid = problems(&on_tables(INVALID), &[vec![target.table.oid].into()])?;
    let policies = Policies::of(target, Mode::Emergency)?;
    let names_failure_types = policies.name_failure_types;
    let fits = !names_failure_types || index::fits_failure_type(target)?;
    let without = if !invalid.is_empty() {
        return Ok(invalid);
    } else if !index::exists(target, false)? {
        "partial index is missing; each run scans the whole table"
    } else if !fits {
        return remark(format!(
            "each run scans the whole table: a policy names a failure type, and what {} reads may be longer than an index can have",
            target.failure_type.what()
        ));
    } else if !index::exists(target, names_failure_types)? {
        "the partial index is without the failure type, which a policy names; each run scans the whole table"
    } else if leaves(target)?.iter().any(|leaf| leaf.is_distributed) {
        return remark("the shards have the partial index".into());
    } else if !serves(target, policies)? {
        "the partial index exists, but the planner does not use it alone for the rows in scope"
    } else {
        return Ok(Vec::new());
    };
    let fix = Some(index::backlog_cleanup_index_sql(Some(&target.name))?);
    Ok(vec![Problem { status: Status::Warn, detail: without.into(), fix }])
}

/// Whether the planner ranks each leaf by an index-only scan.
fn serves(target: &Target, policies: Policies) -> Result<bool> {
    let (selection, policies) = (Selection::default(), Rc::new(policies));
    let rules = Rules { target, selection, mode: Mode::Regular, policies, include_held: false };
    for leaf in leaves(target)?.iter().filter(|leaf| !leaf.table.is_foreign()) {
        if plan(&rules, leaf)?.pointer("/0/Plan/Node Type").and_then(Value::as_str) != Some("Index Only Scan") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The plan for ranking a leaf. Runs as the leaf's owner, since planning may call functions of the table.
fn plan(rules: &Rules, leaf: &Leaf) -> Result<Value> {
    let mut plan = Value::Null;
    reading_as_owner_of(&leaf.table, || {
        let explain = format!("EXPLAIN (FORMAT JSON) {}", through_index_alone(rules, leaf));
        stream_writing(&explain, None, |row| {
            // SAFETY: a json is stored as a text.
            let text = unsafe { row.text(0) };
            plan = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        })
    })?;
    Ok(plan)
}

const REFERENCES: &str = "
    SELECT 'warn', format('%s (%s) references %s and has no index', c.conrelid::regclass, key.columns, c.confrelid::regclass),
           format('CREATE INDEX %sON %s (%s)', CASE WHEN r.relkind = 'p' THEN '' ELSE 'CONCURRENTLY ' END,
                  c.conrelid::regclass, key.columns)
    FROM pg_constraint c
    JOIN (SELECT DISTINCT oid FROM changed WHERE is_removed) removed ON c.confrelid = removed.oid
    JOIN pg_class r ON r.oid = c.conrelid
    CROSS JOIN LATERAL (
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.place) AS columns
        FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number
    ) key
    WHERE c.contype = 'f' AND c.conparentid = 0
      AND NOT EXISTS (
          SELECT FROM pg_index i
          WHERE i.indrelid = c.conrelid AND i.indisvalid
            AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = format('(%s IS NOT NULL)', key.columns))
            AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey
      )
    ORDER BY 2";

/// Finds references without an index: PostgreSQL searches the referencing table for every removed row. Also for rows that go
/// behind it, by ON DELETE CASCADE.
pub fn references(target: &Target) -> Result<Vec<Problem>> {
    problems(&on_changed(REFERENCES), &[vec![target.table.oid].into()])
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use super::partial;
    use crate::postgres::error::Result;
    use crate::rank::index::backlog_cleanup_index_sql;
    use crate::target::Target;

    fn serves(target: &Target) -> Result<bool> {
        partial(target).map(|problems| problems.is_empty())
    }

    #[pg_test]
    fn the_partial_index_is_what_the_planner_ranks_by() {
        Spi::run(include_str!("../../demo/platform.sql")).expect("the platform's tables");
        let target = Target::load(Some("generations")).expect("a target");
        assert!(!serves(&target).expect("a plan"));
        let index = backlog_cleanup_index_sql(Some("generations")).expect("a statement");
        Spi::run(&index.replace(" CONCURRENTLY", "")).expect("the index");
        assert!(serves(&target).expect("a plan"));
        // An index with another predicate serves other rows.
        Spi::run("UPDATE backlog_cleanup.target SET account = 'another'").expect("an account");
        let target = Target::load(Some("generations")).expect("a target");
        assert!(!serves(&target).expect("a plan"));
    }
}
