use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::postgres::error::Result;
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::parse::parse;
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::{briefly, sqlstate};
use crate::postgres::table::{Column, Table};
use crate::postgres::wal::WalCompression;
use crate::target::leaf::leaves;
use crate::target::mistake::Mistake;
use crate::target::nearest::nearest;
use crate::target::passed_over::{PassedOver, passed_over};
use crate::target::row::row;
use crate::target::{Target, TargetRow};

/// Checks that the tables, columns and values that a target names exist and can be used. All mistakes are one error. Errors:
/// those of `Target::load`, 22P02 (a value that its column cannot have), 23514 (two statuses are the same value), 22023 (a value
/// that its column stores as another, a time zone), 0A000 (what runs would pass over, ids that cannot be found by key), what its throttle query raises.
#[pg_extern(stable)]
fn backlog_cleanup_check(target: Option<&str>) -> Result<()> {
    let row = row(target)?;
    let (target, mistakes) = find(&row, Vec::new())?;
    if !mistakes.is_empty() {
        return Err(row.refusal(&mistakes, None));
    }
    target.map_or(Ok(()), |target| leaves(&target).map(drop))
}

/// Finds what a row names, and all that is wrong with it. The row need not be there yet. What is known to be `wrong` comes first.
pub fn find(row: &TargetRow, wrong: Vec<Mistake>) -> Result<(Option<Target>, Vec<Mistake>)> {
    let (target, missed) = Target::find(row)?.map_or_else(|missed| (None, Some(missed)), |target| (Some(target), None));
    let table =
        target.as_ref().map(|target| &target.table).or(missed.as_ref().and_then(|missed| missed.table.as_ref()));
    let meant = missed.as_ref().and_then(|missed| missed.meant.as_ref());
    let mut found = Vec::new();
    if let Some(table) = table.or(meant) {
        let column = |name: &Option<String>| name.as_deref().map_or(Ok(None), |name| table.column(name));
        if let Some((column, account)) = column(&row.account_column)?.zip(row.account.as_deref()) {
            found.extend(value_for("account", account, column, table, meant.is_none())?);
        }
        let status = target.as_ref().and_then(|target| target.status.as_ref());
        if let Some(column) = status.map_or_else(|| column(&row.status_column), |status| Ok(Some(status)))? {
            let is_its_column =
                missed.iter().flat_map(|missed| &missed.mistakes).all(|it| it.column != "status_column");
            found.extend(statuses(row, column, table, meant.is_none(), is_its_column)?);
        }
    }
    found.extend(table.and_then(|table| throttle(row, table)));
    found.extend(time_zone(&row.time_zone)?);
    found.extend(wal_compression(row));
    if let Some(target) = &target {
        let mistake = |passed_over: PassedOver| {
            Mistake::of(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, "generations_table", &passed_over.error())
        };
        found.extend(passed_over(target)?.into_iter().map(mistake));
    }
    let found = missed.into_iter().flat_map(|missed| missed.mistakes).chain(found);
    // What stands in place of a wrong value nobody has written.
    let (instead, found): (Vec<Mistake>, Vec<Mistake>) =
        found.partition(|mistake| wrong.iter().any(|known| known.column == mistake.column));
    let known = wrong.into_iter().map(|known| match instead.iter().find(|mistake| mistake.column == known.column) {
        Some(mistake) => known.corrected_as(mistake),
        None => known,
    });
    Ok((target, known.chain(found).collect()))
}

/// Checks that a column can have every status whose rows are removed, and, with `can_compare`, that no two are the same value. What is
/// right is the whole list.
fn statuses(
    row: &TargetRow,
    column: &Column,
    table: &Table,
    is_the_target: bool,
    can_compare: bool,
) -> Result<Vec<Mistake>> {
    let mut readable = TargetRow { statuses: Vec::new(), ..row.clone() };
    let mut unreadable = Vec::new();
    let mut list = Vec::new();
    for value in &row.statuses {
        let mistake = value_for("statuses", value, column, table, is_the_target)?;
        let right = mistake.as_ref().map_or(Some(value.as_str()), Mistake::right);
        list.extend(right.map(str::to_owned).filter(|right| !list.contains(right)));
        match mistake {
            Some(mistake) => unreadable.push(mistake),
            None => readable.statuses.push(value.clone()),
        }
    }
    let same = if can_compare && is_the_target { readable.same_statuses(column, table)? } else { Vec::new() };
    if unreadable.is_empty() {
        return Ok(same);
    }
    let again =
        |status: &String| readable.statuses.contains(status) && same.iter().any(|mistake| mistake.leaves_out(status));
    list.retain(|status| !again(status));
    let unreadable: Vec<Mistake> = unreadable.into_iter().map(|mistake| mistake.in_list(&list)).collect();
    let same = same.into_iter().map(|mistake| match mistake.column == "statuses" {
        true => mistake.corrected_as(&unreadable[0]),
        false => mistake,
    });
    let same: Vec<Mistake> = same.collect();
    Ok(unreadable.into_iter().chain(same).collect())
}

/// Checks that a column can have a value. The labels of an enum are in the catalog; code of any other type runs as the table's
/// owner, if that `is_the_target`'s.
fn value_for(
    key: &'static str,
    value: &str,
    column: &Column,
    table: &Table,
    is_the_target: bool,
) -> Result<Option<Mistake>> {
    const LABELS: &str =
        "SELECT pg_catalog.array_agg(enumlabel::pg_catalog.text ORDER BY enumsortorder) FROM pg_catalog.pg_enum
                          WHERE enumtypid OPERATOR(pg_catalog.=) $1";
    let labels = one_now::<Vec<String>>(LABELS, &[column.type_oid.into()])?.unwrap_or_default();
    if labels.iter().any(|label| label == value) || labels.is_empty() && !is_the_target {
        return Ok(None);
    }
    if labels.is_empty() {
        let read = briefly(|| {
            reading_as_owner_of(table, || {
                column.accepts(value, table)?;
                // Rows of an account are those with its text.
                if key == "account" { column.stores(value, table) } else { Ok(()) }
            })
        });
        return Ok(read.err().map(|failure| Mistake::caught(key, "", failure)));
    }
    let code = PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION;
    let mistake = Mistake::new(code, key, column.unreadable(value), column.values(table));
    Ok(Some(mistake.there_are("labels", &labels, value)))
}

fn throttle(row: &TargetRow, table: &Table) -> Option<Mistake> {
    const EXAMPLE: &str = "SELECT 'replication lags' FROM pg_stat_replication WHERE replay_lag > '10 s'";
    let failure = briefly(|| row.throttle(table)).err()?;
    let statements = parse(row.throttle_query.as_deref().unwrap_or_default());
    let is_select = matches!(statements.as_deref(), Some([only]) if only.kind == pg_sys::NodeTag::T_SelectStmt);
    let what = if is_select { "throttle query fails: " } else { "throttle query is not one SELECT: " };
    let look = format!("SELECT throttle_query FROM backlog_cleanup.target WHERE name = {}", quote_literal(&row.name));
    Some(Mistake::caught("throttle_query", what, failure).look_at(look).guess(EXAMPLE.into()))
}

fn wal_compression(row: &TargetRow) -> Option<Mistake> {
    let compression = row.wal_compression;
    let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
    let wrong = format!("this server was built without {}", compression.value());
    let look = "SELECT enumvals FROM pg_settings WHERE name = 'wal_compression'".into();
    let mistake = Mistake::new(code, "wal_compression", wrong, look).or(WalCompression::Auto.value().into());
    (!compression.is_built_in()).then_some(mistake)
}

/// An abbreviation means another time zone elsewhere, and no summer time; `EST` is five hours behind UTC or ten ahead of it.
const ABBREVIATION: &str = "
    SELECT EXISTS (SELECT FROM pg_timezone_abbrevs
                   WHERE abbrev = upper($1) AND abbrev NOT IN ('UTC', 'GMT', 'UCT', 'UT', 'Z', 'ZULU'))";

fn time_zone(written: &str) -> Result<Option<Mistake>> {
    if extension::as_owner(|| read_one::<bool>(ABBREVIATION, &[written.into()]))? == Some(true) {
        return Ok(Some(Mistake::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "time_zone",
            format!("time zone \"{written}\" is an abbreviation, which several time zones have"),
            "SELECT name FROM pg_timezone_names".into(),
        )));
    }
    let known = briefly(|| {
        read_one::<TimestampWithTimeZone>("SELECT pg_catalog.timezone($1, timestamp '2000-01-01')", &[written.into()])
    });
    match known {
        Ok(_) => return Ok(None),
        Err(failure) if sqlstate(&failure) != PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE => failure.rethrow(),
        Err(_) => {}
    }
    let names = rows_now("SELECT name FROM pg_catalog.pg_timezone_names", &[], |row| {
        Ok(row.get::<String>(1)?.unwrap_or_default())
    })?;
    let unknown = Mistake::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        "time_zone",
        format!("time zone \"{written}\" is not known"),
        "SELECT name FROM pg_timezone_names".into(),
    );
    Ok(Some(unknown.there_are("time zones", nearest(written, &names).map_or(&[], std::slice::from_ref), written)))
}
