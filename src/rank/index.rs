use std::collections::BTreeSet;

use backlog_cleanup_report::Mode;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::postgres::now::one_now;
use crate::postgres::read::read_one;
use crate::postgres::table::Column;
use crate::rules::Rules;
use crate::rules::matching::Policies;
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach, leaves};

/// Returns the statement that builds the partial index of a target, for `\gexec`. Not CONCURRENTLY on a partitioned table,
/// which PostgreSQL does not support. Errors: those of `Target::load`, 42809 (a foreign table: its own server has its
/// indexes), 0A000 (who types the statement would run code of the table's owner).
#[pg_extern(stable)]
pub fn backlog_cleanup_index_sql(target: default!(Option<&str>, "'generations'")) -> Result<String> {
    let target = Target::load(target)?;
    let Target { table, failed_at, account_column, status, meets, .. } = &target;
    let has_failed = match status {
        Some(status) => match &target.statuses[..] {
            [only] => format!("{} OPERATOR(pg_catalog.=) {}", status.name, quote_literal(only)),
            several => status.is_one_of(&status.name, several),
        },
        None => format!("{} IS NOT NULL", failed_at.name),
    };
    let condition = meets.as_ref().map(|condition| format!(" AND {}", condition.sql)).unwrap_or_default();
    if table.is_foreign() {
        return Err(error(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{} is a foreign table, whose own server has its indexes", table.name),
            format!(
                "SELECT srvoptions FROM pg_foreign_server s JOIN pg_foreign_table t ON t.ftserver = s.oid WHERE ftrelid = {}::regclass",
                quote_literal(&table.name)
            ),
        ));
    }
    if let Some(NotServed { reason, long }) = not_served(&target)? {
        return Err(error(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, reason, generated(&target, long)));
    }
    let is_of_account = account_column
        .as_ref()
        .zip(target.account.as_deref())
        .map(|(column, account)| format!("{} OPERATOR(pg_catalog.=) {} AND ", column.name, quote_literal(account)));
    let concurrently = if table.kind as u8 == b'p' { "" } else { " CONCURRENTLY" };
    let names_failure_types = Policies::of(&target, Mode::Emergency)?.name_failure_types;
    let Columns { recipes, order, included } = columns(&target, names_failure_types && fits_failure_type(&target)?);
    let key = recipes.iter().map(|column| column.name.clone());
    let key = key.chain(order.iter().map(|column| format!("{} DESC", column.name)));
    let include = match included.as_slice() {
        [] => String::new(),
        columns => {
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            format!(" INCLUDE ({})", names.join(", "))
        }
    };
    Ok(format!(
        "CREATE INDEX{concurrently} ON {} ({}){include} WHERE {}{has_failed}{condition}",
        table.name,
        key.collect::<Vec<_>>().join(", "),
        is_of_account.unwrap_or_default(),
    ))
}

/// The statements that make a column of what an expression of the target reads in a long one, and use it; or else a dry run, which needs no
/// index.
fn generated(target: &Target, long: Option<i16>) -> String {
    let operands = [
        ("recipe", "recipe_column", Some(&target.recipe).filter(|_| target.recipe_columns.is_none())),
        ("finished_at", "failed_at_column", Some(&target.failed_at)),
        ("failure_type", "failure_type_column", Some(&target.failure_type)),
        ("status", "status_column", target.status.as_ref()),
    ];
    let found = operands.into_iter().find_map(|(name, key, column)| {
        let read = column?.expression.as_ref().filter(|read| long.is_some_and(|long| read.columns.contains(&long)))?;
        Some((format!("backlog_{name}"), key, read, &column?.sql_type))
    });
    match found {
        Some((name, key, read, sql_type)) => format!(
            "ALTER TABLE {} ADD {name} {sql_type} GENERATED ALWAYS AS ({}) STORED; {}; -- writes the table anew",
            target.table.name,
            read.sql,
            target.set(key, &quote_literal(&name))
        ),
        None => format!("SELECT backlog_cleanup_failed_generations({}, dry_run => true)", quote_literal(&target.name)),
    }
}

/// Why no partial index can serve a target.
pub struct NotServed {
    pub reason: String,
    /// The number of the column whose values may be longer than an index entry.
    long: Option<i16>,
}

/// Whether no partial index can serve a target: its condition has values that the planner does not know, btree has no order for a column, or
/// an expression reads one whose values may be longer than an index entry.
pub fn not_served(target: &Target) -> Result<Option<NotServed>> {
    let because = |reason: String| Ok(Some(NotServed { reason, long: None }));
    let account = target.account_column.as_ref().map(|column| (column, target.account.as_slice()));
    let status = target.status.as_ref().map(|column| (column, target.statuses.as_slice()));
    let is_no_constant = |(column, values): &(&Column, &[String])| !column.can_be_indexed_for(values);
    if let Some((column, _)) = account.into_iter().chain(status).find(is_no_constant) {
        return because(format!("no partial index can serve {}, which has type {}", column.what(), column.type_name));
    }
    let Columns { recipes, order, included } = columns(target, false);
    // SAFETY: look-ups in the system cache.
    let has_no_order = |column: &&&Column| unsafe {
        pg_sys::GetDefaultOpClass(column.type_oid, pg_sys::BTREE_AM_OID) == pg_sys::InvalidOid
    };
    if let Some(column) = recipes.iter().chain(&order).find(has_no_order) {
        let (what, type_name) = (column.what(), &column.type_name);
        return because(format!("no partial index can have {what}: btree has no order for type {type_name}"));
    }
    let mut long = long_in_rows(target, &[&recipes[..], &order, &included].concat())?;
    if !fits_failure_type(target)? {
        long.extend(numbers_read(&target.failure_type));
    }
    let is_long = |column: &&&Column| long.contains(&column.number) || is_document(column.type_oid);
    let plain = recipes.iter().chain(&order).filter(|column| column.expression.is_none());
    Ok(plain.chain(&included).find(is_long).map(|column| NotServed {
        reason: format!(
            "no partial index can have {}: PostgreSQL would refuse rows where it is long; a generated column of what matters of it can be indexed",
            column.what()
        ),
        long: Some(column.number),
    }))
}

/// Of these columns, those that are long in some of the first rows of a leaf: a name of a queue has some 20 bytes, a message some hundreds.
fn long_in_rows(target: &Target, columns: &[&Column]) -> Result<Vec<i16>> {
    let plain: Vec<&&Column> = columns.iter().filter(|column| column.expression.is_none()).collect();
    let is_long = |column: &&&Column| {
        let name = &column.name;
        format!("coalesce(pg_catalog.max(pg_catalog.pg_column_size({name})) OPERATOR(pg_catalog.>) 500, false)")
    };
    let are_long = plain.iter().map(is_long).collect::<Vec<_>>().join(", ");
    let names: BTreeSet<&str> = plain.iter().map(|column| column.name.as_str()).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    let mut long = Vec::new();
    for leaf in leaves(target)?.iter().filter(|leaf| leaf.reach == Reach::Position && !leaf.is_distributed) {
        let are_long = format!(
            "SELECT ARRAY[{are_long}]::pg_catalog.bool[] FROM (SELECT {names} FROM ONLY {} LIMIT 1000) first_rows",
            leaf.table.name
        );
        let are_long = leaf.reading_as_owner(target, || read_one::<Vec<bool>>(&are_long, &[]))?.unwrap_or_default();
        long.extend(plain.iter().zip(are_long).filter(|(_, is_long)| *is_long).map(|(column, _)| column.number));
    }
    Ok(long)
}

/// Whether values of a type are usually long.
fn is_document(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in the system cache.
    let base = unsafe { pg_sys::getBaseType(type_oid) };
    let documents = [pg_sys::JSONOID, pg_sys::JSONBOID, pg_sys::XMLOID, pg_sys::BYTEAOID];
    // SAFETY: as above.
    documents.contains(&base) || unsafe { pg_sys::get_element_type(base) } != pg_sys::InvalidOid
}

/// The columns of the partial index.
struct Columns<'a> {
    /// Those of the recipe, if there is one.
    recipes: Vec<&'a Column>,
    /// Failed-at, and those of the id that are not the recipe's.
    order: Vec<&'a Column>,
    /// Without the columns that an expression reads PostgreSQL has to visit the table.
    included: Vec<&'a Column>,
}

/// The columns of the index; where ranking needs the failure type, those that it reads as well.
fn columns(target: &Target, with_failure_type: bool) -> Columns<'_> {
    let Target { recipe, failed_at, id, status, failure_type, .. } = target;
    let of_recipe =
        |column: &&Column| recipe.expression.as_ref().is_some_and(|all| all.columns.contains(&column.number));
    let recipes: Vec<&Column> = match target.recipe_columns {
        Some(_) => target.reads.iter().map(|(_, column)| column).filter(of_recipe).collect(),
        None => vec![recipe],
    };
    let is_read = |column: &Column| column.expression.as_ref().is_none_or(|expression| !expression.columns.is_empty());
    let recipes: Vec<&Column> = recipes.into_iter().filter(|column| is_read(column)).collect();
    let of_id = id.columns.iter().map(|(_, column)| column);
    let is_new = |column: &&Column| recipes.iter().all(|other| other.number != column.number);
    let of_id = of_id.filter(|column| column.number != failed_at.number).filter(is_new);
    let order: Vec<&Column> = std::iter::once(failed_at).chain(of_id).collect();
    let key = || recipes.iter().chain(&order);
    // Which of several statuses a row has, the index's condition does not say.
    let status = status.iter().filter(|_| target.has_several_statuses());
    let failure_type = Some(failure_type).filter(|_| with_failure_type);
    let below: Vec<i16> = key().copied().chain(status).chain(failure_type).flat_map(numbers_read).collect();
    let mut included: Vec<&Column> = Vec::new();
    for column in target.reads.iter().map(|(_, column)| column).filter(|column| below.contains(&column.number)) {
        if key().chain(&included).all(|other| other.number != column.number) {
            included.push(column);
        }
    }
    Columns { recipes, order, included }
}

/// The numbers of the columns that a column or an expression reads.
fn numbers_read(column: &Column) -> Vec<i16> {
    column.expression.as_ref().map_or(vec![column.number], |read| read.columns.clone())
}

/// Whether the index can have what the failure type reads: PostgreSQL refuses a row whose entry would be longer than a third of a page,
/// and an error's message may be.
pub fn fits_failure_type(target: &Target) -> Result<bool> {
    const FIT: &str = "
        SELECT pg_catalog.bool_and(typlen OPERATOR(pg_catalog.>) 0::pg_catalog.int2
                                   OR atttypid OPERATOR(pg_catalog.=) ANY ('{varchar,bpchar}'::pg_catalog.regtype[])
                                      AND atttypmod BETWEEN 5 AND 404)
        FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) atttypid
        WHERE attrelid OPERATOR(pg_catalog.=) $1 AND attnum OPERATOR(pg_catalog.=) ANY ($2)";
    let numbers = numbers_read(&target.failure_type);
    let fit = one_now::<bool>(FIT, &[target.table.oid.into(), numbers.into()])?;
    Ok(fit == Some(true))
}

/// Whether the target's table has a valid partial index on recipe, failed-at and id, with the columns that expressions read, or the failure
/// type as well. Which expressions it has, the planner knows.
pub fn exists(target: &Target, with_failure_type: bool) -> Result<bool> {
    let Columns { recipes, order, included } = columns(target, with_failure_type);
    let key = [recipes, order].concat();
    let numbers = |columns: Vec<&Column>| columns.iter().map(|column| i32::from(column.number)).collect::<Vec<_>>();
    read_one::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index,
                             LATERAL (SELECT ARRAY(SELECT pg_catalog.unnest(indkey)::pg_catalog.int4)) AS there (numbers)
                        WHERE indrelid OPERATOR(pg_catalog.=) $1 AND indisvalid AND indpred IS NOT NULL
                          AND numbers[:indnkeyatts] OPERATOR(pg_catalog.=) $2
                          AND numbers[indnkeyatts OPERATOR(pg_catalog.+) 1:] OPERATOR(pg_catalog.@>) $3)",
        &[target.table.oid.into(), numbers(key).into(), numbers(included).into()],
    )
    .map(|exists| exists == Some(true))
}

/// Whether a run reads the partial index instead of the table: the index exists and has every column that the run needs.
pub fn serves(rules: &Rules, leaves: &[Leaf]) -> Result<bool> {
    let has_status = rules.selection.status.is_none() || rules.target.has_several_statuses();
    let needs_failure_type = rules.selection.failure_type.is_some() || rules.policies.name_failure_types;
    Ok(has_status
        && leaves.iter().all(|leaf| leaf.reach == Reach::Position)
        && (!needs_failure_type || fits_failure_type(rules.target)?)
        && exists(rules.target, needs_failure_type)?)
}
