use crate::obstacles::problem::{Problem, Status, problems};
use crate::obstacles::used::{on_changed, on_tables};
use crate::postgres::error::Result;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::settings::set_local;
use crate::postgres::stream::stream_writing;
use crate::rank::index;
use crate::target::Target;
use crate::target::leaf::{Leaf, leaves};

const INVALID: &str = "
    SELECT 'warn', format('index %s is invalid%s', indexrelid::regclass,
                          CASE WHEN relkind = 'I' THEN ': attach an index of every partition' END),
           CASE WHEN relkind <> 'I' THEN format('REINDEX INDEX CONCURRENTLY %s', indexrelid::regclass) END
    FROM pg_index JOIN used ON indrelid = used.oid JOIN pg_class c ON c.oid = indexrelid
    WHERE NOT indisvalid";

/// Checks that the partial index exists, and that the planner uses it for the ranking.
pub fn partial(target: &Target) -> Result<Vec<Problem>> {
    if target.table.is_foreign() {
        let detail = "the table's own server has its indexes".into();
        return Ok(vec![Problem { status: Status::Ok, detail, fix: None }]);
    }
    let invalid = problems(&on_tables(INVALID), &[vec![target.table.oid].into()])?;
    let without = if !invalid.is_empty() {
        return Ok(invalid);
    } else if !index::exists(target)? {
        "partial index is missing; each run scans the whole table"
    } else if !serves(target)? {
        "the partial index exists, but the planner does not use it for the failed rows"
    } else {
        return Ok(Vec::new());
    };
    let fix = Some(index::backlog_cleanup_index_sql(Some(&target.name))?);
    Ok(vec![Problem { status: Status::Warn, detail: without.into(), fix }])
}

/// Whether the planner finds the failed rows of each leaf through a partial index, with sequential scans disabled as in a
/// run.
fn serves(target: &Target) -> Result<bool> {
    let partial = on_tables(
        "SELECT 'ok', relname::text, NULL
         FROM pg_index JOIN used ON indrelid = used.oid JOIN pg_class ON pg_class.oid = indexrelid
         WHERE indpred IS NOT NULL",
    );
    let indexes = problems(&partial, &[vec![target.table.oid].into()])?;
    let names: Vec<String> = indexes.iter().map(|index| serde_json::json!(index.detail).to_string()).collect();
    for leaf in leaves(target)?.iter().filter(|leaf| !leaf.table.is_foreign()) {
        let plan = plan(target, leaf)?;
        if !names.iter().any(|name| plan.contains(&format!("\"Index Name\": {name}"))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The plan for ranking a leaf, as JSON. Runs as the leaf's owner, since planning may call functions of the table.
fn plan(target: &Target, leaf: &Leaf) -> Result<String> {
    let Target { recipe, failed_at, id, .. } = target;
    let explain = format!(
        "EXPLAIN (FORMAT JSON) SELECT {}, {}, {} FROM {} g WHERE {}",
        recipe.of_row(),
        failed_at.of_row(),
        id.value.of_row(),
        leaf.rows(),
        target.is_failed()
    );
    let mut plan = String::new();
    reading_as_owner_of(&leaf.table, || {
        set_local("enable_seqscan", "off");
        stream_writing(&explain, None, |row| {
            // SAFETY: a json is stored as a text.
            plan = unsafe { row.text(0) }.unwrap_or_default().to_owned();
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

    use super::serves;
    use crate::rank::index::backlog_cleanup_index_sql;
    use crate::target::Target;

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
