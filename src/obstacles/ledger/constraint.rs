use serde::Deserialize;

use crate::extension;
use crate::obstacles::ledger::answer::{cannot_be_told, refuses};
use crate::obstacles::ledger::column::{Columns, NOW};
use crate::obstacles::problem::{Problem, Status, rows_of};
use crate::postgres::error::Result;
use crate::postgres::expression::is_immutable;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::settings::set_local;
use crate::postgres::subtransaction::{briefly, is_cancel};
use crate::postgres::table::Table;
use crate::target::trust;

/// What a row may break: CHECKs of the table and of its columns' domains, bounds of partitions, foreign keys, unique indexes, exclusion
/// constraints. Where an index was made for a constraint, that is what knows its operators.
const CONSTRAINTS: &str = "
    SELECT jsonb_build_object('kind', con.contype, 'name', con.conname, 'columns', con.conkey,
                              'expression', pg_get_expr(con.conbin, con.conrelid), 'tree', con.conbin::text,
                              'is_built_in', NOT EXISTS (
                                  SELECT FROM pg_depend WHERE classid = 'pg_constraint'::regclass AND objid = con.oid
                                    AND NOT (refclassid = 'pg_class'::regclass AND refobjid = con.conrelid)),
                              'referenced', con.confrelid::bigint, 'keys', (
                                  SELECT array_agg(quote_ident(attname) ORDER BY place)
                                  FROM unnest(con.confkey) WITH ORDINALITY k (number, place)
                                  JOIN pg_attribute ON attrelid = con.confrelid AND attnum = k.number),
                              'names', (
                                  SELECT array_agg(quote_ident(attname) ORDER BY place)
                                  FROM unnest(con.conkey) WITH ORDINALITY k (number, place)
                                  JOIN pg_attribute ON attrelid = con.conrelid AND attnum = k.number))
    FROM pg_constraint con
    WHERE conrelid = $1 AND contype IN ('c', 'f') AND conparentid = 0 AND (to_jsonb(con) ->> 'conenforced') IS DISTINCT FROM 'false'
    UNION ALL
    SELECT jsonb_build_object('kind', 'd', 'name', con.conname, 'columns', ARRAY[a.attnum],
                              'expression', pg_get_expr(con.conbin, 0), 'tree', con.conbin::text,
                              'is_built_in', NOT EXISTS (
                                  SELECT FROM pg_depend WHERE classid = 'pg_constraint'::regclass AND objid = con.oid
                                    AND NOT (refclassid = 'pg_type'::regclass AND refobjid = con.contypid)))
    FROM pg_attribute a
    CROSS JOIN LATERAL (
        WITH RECURSIVE domain (oid) AS (
            SELECT a.atttypid UNION SELECT typbasetype FROM domain JOIN pg_type USING (oid) WHERE typtype = 'd'
        ) SELECT oid FROM domain) domain
    JOIN pg_constraint con ON con.contypid = domain.oid
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND con.contype = 'c'
    UNION ALL
    SELECT jsonb_build_object('kind', 'p', 'name', p.partrelid::regclass::text,
                              'columns', array_agg(DISTINCT a.attnum),
                              'expression', coalesce((
                                  SELECT string_agg(coalesce(pg_get_partition_constraintdef(relid), 'true'), ' OR ')
                                  FROM pg_partition_tree(p.partrelid) WHERE isleaf AND relid <> p.partrelid), 'false'),
                              'is_built_in', bool_and(k.number <> 0 AND k.opclass < 16384))
    FROM pg_partitioned_table p
    JOIN pg_partition_tree(p.partrelid) tree ON true
    JOIN pg_partitioned_table part ON part.partrelid = tree.relid
    CROSS JOIN unnest(part.partattrs::int2[], part.partclass::oid[]) k (number, opclass)
    LEFT JOIN pg_attribute there ON there.attrelid = part.partrelid AND there.attnum = k.number AND k.number > 0
    LEFT JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attname = there.attname
    WHERE p.partrelid = $1
    GROUP BY p.partrelid
    UNION ALL
    SELECT jsonb_build_object('kind', CASE WHEN indisexclusion THEN 'x' ELSE 'u' END, 'name', indexrelid::regclass::text,
                              'columns', (
                                  SELECT array_agg(number)
                                  FROM (SELECT unnest((indkey::int2[])[0:indnkeyatts - 1])
                                        UNION
                                        SELECT refobjsubid FROM pg_depend
                                        WHERE classid = 'pg_class'::regclass AND objid = indexrelid
                                          AND refclassid = 'pg_class'::regclass AND refobjid = indrelid) read (number)
                                  WHERE number > 0),
                              'expression', coalesce(pg_get_expr(indpred, indrelid), 'true'),
                              'is_built_in', coalesce(compared.are_built_in, true) AND NOT EXISTS (
                                  SELECT FROM pg_depend
                                  WHERE classid = 'pg_class'::regclass AND objid = indexrelid
                                    AND refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_collation'::regclass)),
                              'keys', (SELECT array_agg(concat(pg_get_indexdef(indexrelid, place, true),
                                                               CASE WHEN c.oid > 0 THEN format(' COLLATE %I.%I', n.nspname, c.collname) END) ORDER BY place)
                                       FROM generate_series(1, indnkeyatts) place
                                       LEFT JOIN pg_collation c ON c.oid = indcollation[place - 1]
                                       LEFT JOIN pg_namespace n ON n.oid = c.collnamespace),
                              'operators', coalesce(compared.operators, array_fill(CASE WHEN indnullsnotdistinct THEN 'IS NOT DISTINCT FROM'
                                                                                        ELSE 'OPERATOR(pg_catalog.=)' END,
                                                                                   ARRAY[indnkeyatts::integer])))
    FROM pg_index
    CROSS JOIN LATERAL (
        SELECT array_agg(format('OPERATOR(%I.%s)', nspname, oprname) ORDER BY place) AS operators, max(o.oid) < 16384 AS are_built_in
        FROM pg_constraint con CROSS JOIN unnest(con.conexclop) WITH ORDINALITY AS by (oid, place)
        JOIN pg_operator o ON o.oid = by.oid JOIN pg_namespace n ON n.oid = o.oprnamespace
        WHERE con.conindid = indexrelid AND con.contype = 'x'
    ) compared
    -- An invalid one, as a failed CREATE INDEX CONCURRENTLY leaves it, refuses rows too.
    WHERE indrelid = $1 AND (indisunique OR indisexclusion) AND indisready";

#[derive(Deserialize)]
struct Constraint {
    kind: char,
    name: String,
    columns: Option<Vec<i16>>,
    expression: Option<String>,
    tree: Option<String>,
    #[serde(default)]
    is_built_in: bool,
    #[serde(default)]
    referenced: u32,
    keys: Option<Vec<String>>,
    names: Option<Vec<String>>,
    operators: Option<Vec<String>>,
}

/// The constraints that the row would break, and CHECKs that cannot be evaluated beforehand.
pub fn broken(columns: &Columns) -> Result<Vec<Problem>> {
    let table = &columns.ledger.table;
    let mut found = Vec::new();
    for constraint in rows_of::<Constraint>(CONSTRAINTS, &[table.oid.into()])? {
        let row = columns.row(constraint.columns.as_deref().unwrap_or_default());
        found.extend(match constraint.kind {
            'c' | 'd' | 'p' => check(&constraint, row, columns),
            'f' => reference(&constraint, row, columns)?,
            _ => unique(&constraint, row, columns),
        });
    }
    Ok(found)
}

fn check(constraint: &Constraint, row: Option<String>, columns: &Columns) -> Option<Problem> {
    let name = &constraint.name;
    // What partitions take has no tree of its own: PostgreSQL makes it from their bounds.
    let is_partition = constraint.kind == 'p';
    let is_simple = constraint.is_built_in && (is_partition || constraint.tree.as_deref().is_some_and(is_immutable));
    let evaluated = row.zip(constraint.expression.as_ref()).filter(|_| is_simple).and_then(|(row, expression)| {
        // A domain's CHECK calls its value VALUE, which also reads as the name of a column.
        let alias = if constraint.kind == 'd' { "(value)" } else { "" };
        ask(&columns.ledger.table, format!("SELECT ({expression}) IS FALSE FROM (SELECT {row}) AS g {alias}"))
    });
    match evaluated {
        Some(true) if is_partition => Some(refuses(columns.ledger, "no partition takes it")),
        None if is_partition => Some(cannot_be_told("its partitions are divided by somebody's code".into())),
        Some(true) => {
            Some(refuses(columns.ledger, &format!("it breaks CHECK \"{name}\": {}", constraint.expression.as_ref()?)))
        }
        Some(false) => None,
        None => Some(cannot_be_told(format!("CHECK \"{name}\" needs more than PostgreSQL's own immutable functions"))),
    }
}

fn reference(constraint: &Constraint, row: Option<String>, columns: &Columns) -> Result<Option<Problem>> {
    let (Some(row), Some(keys), Some(names)) = (row, &constraint.keys, &constraint.names) else { return Ok(None) };
    let Some(table) = Table::of(constraint.referenced.into())? else { return Ok(None) };
    let is_equal = equal(keys, names);
    let is_given = names.iter().map(|name| format!("g.{name} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
    // An index of another role's table could make who looks wait.
    let may_be_read = || {
        table.is_of_one_owner()?;
        extension::as_owner(|| {
            trust::check(&[table.oid], &[]).and_then(|()| trust::trusts(columns.ledger.table.owner, table.owner))
        })
    };
    if briefly(may_be_read).ok() != Some(true) {
        let reason = format!("foreign key \"{}\" references {}, which is not looked at", constraint.name, table.name);
        return Ok(Some(cannot_be_told(reason)));
    }
    let missing = format!(
        "SELECT {is_given} AND NOT EXISTS (SELECT FROM {} r WHERE {is_equal}) FROM (SELECT {row}) AS g",
        table.name
    );
    // PostgreSQL locks the row that is referenced.
    let lacking = ["SELECT", "UPDATE"].into_iter().find_map(|privilege| table.allows_its_owner(privilege).err());
    if let Some(lacking) = lacking {
        let is_given = ask(&columns.ledger.table, format!("SELECT {is_given} FROM (SELECT {row}) AS g"));
        let reason = format!("foreign key \"{}\": {}", constraint.name, lacking.message());
        let problem = || Problem { fix: lacking.hint().map(str::to_owned), ..refuses(columns.ledger, &reason) };
        return Ok((is_given != Some(false)).then(problem));
    }
    Ok(match ask(&table, missing) {
        Some(false) => None,
        Some(true) => {
            let reason = format!("it breaks foreign key \"{}\": {} has no such row", constraint.name, table.name);
            Some(refuses(columns.ledger, &reason))
        }
        None => Some(cannot_be_told(format!("{} of foreign key \"{}\" cannot be read", table.name, constraint.name))),
    })
}

/// A row that is in conflict with one of the ledger, or with the next of its kind.
fn unique(constraint: &Constraint, row: Option<String>, columns: &Columns) -> Option<Problem> {
    let Constraint { kind, name, columns: numbers, expression, keys, operators, .. } = constraint;
    let (row, keys, operators) = (row?, keys.as_ref()?, operators.as_ref()?);
    let table = &columns.ledger.table;
    let (of_what, already) = match kind {
        'x' => ("exclusion constraint", "does not go with a row that is there already"),
        _ => ("unique index", "has its values already"),
    };
    let what = format!("{of_what} {name}");
    if !constraint.is_built_in {
        return Some(cannot_be_told(format!("{what} needs more than PostgreSQL's own functions and collations")));
    }
    let each = |text: &dyn Fn(usize) -> String, between| (0..keys.len()).map(text).collect::<Vec<_>>().join(between);
    let list = each(&|place| format!("{} AS key{place}", keys[place]), ", ");
    let holds = expression.as_deref().unwrap_or("true");
    let of = |rows: &str| format!("(SELECT {list} FROM {rows} WHERE {holds})");
    let written = of(&format!("(SELECT {row}) AS written"));
    let compared = each(&|place| format!("r.key{place} {} g.key{place}", operators[place]), " AND ");
    let is_taken =
        |rows: &str| ask(table, format!("SELECT EXISTS (SELECT FROM {rows} AS r, {written} AS g WHERE {compared})"));
    if is_taken(&of(&table.name)) == Some(true) {
        return Some(refuses(columns.ledger, &format!("{what} {already}")));
    }
    // That of a batch a second before.
    let before = row.replace(NOW, "(pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.interval '1 second')");
    let before = of(&format!("(SELECT {before}) AS written"));
    let is_varied = columns.have_what_varies(numbers.as_deref().unwrap_or_default());
    let is_next_refused = !is_varied && is_taken(&before) == Some(true);
    is_next_refused.then(|| {
        let detail = format!(
            "ledger {} can take the row of one run only, or of one batch, as long as its values stay the same: {what} refuses the next",
            table.name
        );
        Problem { status: Status::Warn, detail, fix: None }
    })
}

fn equal(there: &[String], here: &[String]) -> String {
    let pairs = there.iter().zip(here).map(|(there, here)| format!("r.{there} OPERATOR(pg_catalog.=) g.{here}"));
    pairs.collect::<Vec<_>>().join(" AND ")
}

/// Answers a question about a table as its owner; `None` if PostgreSQL cannot answer.
pub(super) fn ask(table: &Table, question: String) -> Option<bool> {
    let answer = || {
        // What the catalogs have written out is found in no other schema.
        set_local("search_path", "pg_catalog, pg_temp");
        read_one::<bool>(&question, &[])
    };
    match briefly(|| reading_as_owner_of(table, answer)) {
        Ok(answer) => answer,
        Err(caught) if is_cancel(&caught) => caught.rethrow(),
        Err(_) => None,
    }
}
