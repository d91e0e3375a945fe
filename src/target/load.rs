use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use pgrx::prelude::*;

use crate::extension;
use crate::postgres::analysed::is_scalar;
use crate::postgres::error::Result;
use crate::postgres::expression::Expression;
use crate::postgres::search_path::with_temporary_last;
use crate::postgres::table::{Column, Table};
use crate::target::column::{Part, document};
use crate::target::expression::{self, is_expression};
use crate::target::id::Id;
use crate::target::instead::{PRIMARY_KEY, TIMES, columns, instant_of_number, look_at_columns, no_column};
use crate::target::mistake::Mistake;
use crate::target::own::FINGERPRINT;
use crate::target::row::row;
use crate::target::{Ledger, RecipeTable, Target, TargetRow, Users, trust};

impl Target {
    /// Reads the row `name` and checks what it names.
    /// Errors: 22004, 42704, 42P01, 42501 (a table that does not belong to the role that named it), 42809, 42703, 42804,
    /// 55000 (a partition of another owner, in a table that is not read leaf by leaf).
    pub fn load(name: Option<&str>) -> Result<Target> {
        let row = row(name)?;
        Target::find(&row)?.map_err(|missed| row.refusal(&missed.mistakes, None))
    }

    /// Finds what a row names, or all mistakes in it. Errors: 42501 (code of others below the tables).
    pub fn find(row: &TargetRow) -> Result<std::result::Result<Target, Missed>> {
        // With this search path names and types come out qualified.
        extension::as_owner(|| {
            let mut found = Search { row, mistakes: RefCell::default() }.target()?;
            // What is found beside mistakes is read, too.
            let tables = match &found {
                Ok(target) => target.tables(),
                Err(missed) => missed.table.iter().map(|table| table.oid).collect(),
            };
            trust::check(&tables, &[])?;
            // That runs code of the column's type.
            if let Ok(target) = &mut found {
                target.names_of_statuses = target.find_names_of_statuses()?;
            }
            Ok(found)
        })
    }
}

/// What is found of a target with mistakes.
pub struct Missed {
    /// The target's table, if that is none of the mistakes.
    pub table: Option<Table>,
    /// The table that the row means, if it names none.
    pub meant: Option<Table>,
    pub mistakes: Vec<Mistake>,
}

/// The table of a target, and the target's `lock_timeout` in milliseconds; nothing else is checked.
/// Errors: 22004, 42704, 42P01, 42501.
pub fn table(name: Option<&str>) -> Result<(Table, i64)> {
    let row = row(name)?;
    let found = extension::as_owner(|| row.find("generations_table", &row.generations_table, TABLES))?;
    match found {
        Ok(table) => Ok((table, row.lock_timeout)),
        Err(_) => Target::load(name).map(|target| (target.table, row.lock_timeout)),
    }
}

/// Looks for what a row names, and collects the mistakes.
struct Search<'a> {
    row: &'a TargetRow,
    mistakes: RefCell<Vec<Mistake>>,
}

const TABLES: &str = "rpf";
const TABLES_AND_VIEWS: &str = "rpfvm";
const WRITABLE: &str = "rpfv";

/// The defaults of `recipes_table`, `users_table` and `ledger_table`, which few have.
const PLATFORM: [&str; 3] = ["public.recipes", "public.users", "public.credit_transactions"];

impl Search<'_> {
    fn target(self) -> Result<std::result::Result<Target, Missed>> {
        let row = self.row;
        let (mut table, meant) = self.table("generations_table", &row.generations_table, TABLES)?;
        let search_path = row.search_path.as_deref().and_then(with_temporary_last);
        if let (Some(table), Some(search_path)) = (&mut table, search_path) {
            table.search_path = search_path;
        }
        let here = table.as_ref().or(meant.as_ref());
        let columns = (
            self.id(here)?,
            match &row.account_column {
                Some(account) => {
                    self.lasting(here, "account_column", self.column(here, "account_column", account)?)?.map(Some)
                }
                None => Some(None),
            },
            match &row.recipe_column {
                _ if row.recipe_columns.is_some() => match self.parts_of_a_recipe(here)? {
                    Some(columns) => Some(document(&columns)?),
                    None => None,
                },
                Some(recipe) => {
                    self.lasting(here, "recipe_column", self.made_of(table.as_ref(), here, "recipe_column", recipe)?)?
                }
                None => Some(expression::null(pg_sys::INT8OID, "int8")?),
            },
            match &row.status_column {
                Some(status) => {
                    let key = "status_column";
                    let column = self.made_of(table.as_ref(), here, key, status)?;
                    // Its values are compared, whatever they look like in a time zone.
                    let is_instant = column.as_ref().is_some_and(|column| column.type_oid == pg_sys::TIMESTAMPTZOID);
                    if is_instant { column.map(Some) } else { self.lasting(here, key, column)?.map(Some) }
                }
                None => Some(None),
            },
            self.failed_at(table.as_ref(), here)?,
            match &row.failure_type_column {
                Some(failure_type) => {
                    let key = "failure_type_column";
                    self.lasting(here, key, self.made_of(table.as_ref(), here, key, failure_type)?)?
                }
                None => Some(expression::null(pg_sys::TEXTOID, "text")?),
            },
            self.condition(table.as_ref())?,
        );
        self.account(here);
        let (recipes, users, ledger) = (self.recipes()?, self.users()?, self.ledger()?);
        let fingerprint_function = table.as_ref().map_or(Ok(None), |table| self.fingerprint_function(table))?;
        self.search_path();
        let mistakes = self.mistakes.into_inner();
        let columns = if mistakes.is_empty() { columns } else { Default::default() };
        match (table, columns) {
            (
                Some(table),
                (
                    Some(id),
                    Some(account_column),
                    Some(recipe),
                    Some(status),
                    Some(failed_at),
                    Some(failure_type),
                    Some(meets),
                ),
            ) => {
                let row = row.clone();
                let fingerprint = fingerprint_function.as_ref().map(|(_, oid)| (pg_sys::ProcedureRelationId, *oid));
                let mut target = Target {
                    row,
                    table,
                    users,
                    recipes,
                    ledger,
                    id,
                    account_column,
                    recipe,
                    status,
                    failed_at,
                    failure_type,
                    meets,
                    fingerprint_function: fingerprint_function.map(|(name, _)| name),
                    spelling: OnceCell::new(),
                    types: OnceCell::new(),
                    reads: Vec::new(),
                    names_of_statuses: Vec::new(),
                };
                target.reads = target.find_reads()?;
                let calls = target.expressions().flat_map(|expression| expression.calls.iter().copied());
                target.table.named = Rc::new(calls.chain(fingerprint).collect());
                target.with_guards().map(Ok)
            }
            (table, _) => Ok(Err(Missed { table, meant, mistakes })),
        }
    }

    fn note(&self, mistake: Mistake) {
        self.mistakes.borrow_mut().push(mistake);
    }

    /// Finds the table `written`, the value of column `key`; or else the one that is meant, to look for columns in.
    fn table(&self, key: &'static str, written: &str, kinds: &str) -> Result<(Option<Table>, Option<Table>)> {
        let mistake = match self.row.find(key, written, kinds)? {
            Err(mistake) => mistake,
            Ok(table) => return Ok((Some(table), None)),
        };
        let meant = mistake.right().map_or(Ok(None), Table::find)?;
        self.note(mistake);
        Ok((None, meant))
    }

    /// Finds an optional table, or else the one that is meant. It is not read leaf by leaf, so all its parts must have one owner.
    fn optional(
        &self,
        key: &'static str,
        written: &Option<String>,
        kinds: &str,
    ) -> Result<(Option<Table>, Option<Table>)> {
        let Some(written) = written else { return Ok((None, None)) };
        let mistake = match self.row.find(key, written, kinds)? {
            Err(mistake) if PLATFORM.contains(&written.as_str()) => mistake.or_left_out(),
            Err(mistake) => mistake,
            Ok(table) => match table.is_of_one_owner() {
                Err(failure) => Mistake::of(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, key, &failure),
                Ok(()) => return Ok((Some(table), None)),
            },
        };
        let meant = mistake.right().map_or(Ok(None), Table::find)?;
        self.note(mistake);
        Ok((None, meant))
    }

    /// The column of a table that the column `key` names; `None` also if there is no table to look in.
    fn column(&self, table: Option<&Table>, key: &'static str, written: &str) -> Result<Option<Column>> {
        let Some(table) = table else { return Ok(None) };
        let found = table.column(written)?.cloned();
        if found.is_none() {
            self.note(no_column(key, written, table)?);
        }
        Ok(found)
    }

    /// Checks that the target has an account and its column, or neither and nothing that needs one. That every row is to be the
    /// target's, somebody has to decide.
    fn account(&self, table: Option<&Table>) {
        let row = self.row;
        let mistake = |key, wrong: &str| {
            let look = table.map_or("SELECT * FROM backlog_cleanup.target".into(), look_at_columns);
            Mistake::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, key, wrong.into(), look)
        };
        match (&row.account_column, &row.account) {
            (Some(_), Some(_)) => {}
            (None, Some(_)) => self.note(mistake("account", "there is an account, but no account_column")),
            (Some(_), None) => self.note(mistake("account_column", "there is an account_column, but no account")),
            (None, None) => {
                let needs = [("users_table", &row.users_table), ("ledger_table", &row.ledger_table)];
                for (key, _) in needs.into_iter().filter(|(_, table)| table.is_some()) {
                    self.note(mistake(key, "a target without an account has no row in such a table").or_null());
                }
            }
        }
    }

    /// The column of the target's table that the column `key` names, or the expression that it has. An expression needs the table
    /// itself.
    fn made_of(
        &self,
        table: Option<&Table>,
        here: Option<&Table>,
        key: &'static str,
        written: &str,
    ) -> Result<Option<Column>> {
        if !is_expression(written) || here.is_some_and(|here| here.column(written).is_ok_and(|found| found.is_some())) {
            return self.column(here, key, written);
        }
        let Some(table) = table else { return Ok(None) };
        self.expression(key, written, table)?.map(Column::made_of).transpose()
    }

    /// The columns that the list in column `key` names, with their names.
    fn listed(
        &self,
        table: Option<&Table>,
        key: &'static str,
        names: &Option<Vec<String>>,
    ) -> Result<Option<Vec<(String, Column)>>> {
        let (Some(table), Some(names)) = (table, names) else { return Ok(None) };
        let mut columns = Vec::new();
        let is_first = |(place, name): &(usize, &String)| !names[..*place].contains(name);
        let once: Vec<&String> = names.iter().enumerate().filter(is_first).map(|(_, name)| name).collect();
        if once.len() < names.len() {
            let wrong = format!("a column of {} is listed twice", table.name);
            let mistake = Mistake::new(PgSqlErrorCode::ERRCODE_DUPLICATE_COLUMN, key, wrong, look_at_columns(table));
            self.note(mistake.or(serde_json::json!(once)));
            return Ok(None);
        }
        let mut list = names.clone();
        let mut mistakes = Vec::new();
        for (name, right) in names.iter().zip(&mut list) {
            if let Some(column) = table.column(name)? {
                columns.push((name.clone(), column.clone()));
                continue;
            }
            let mistake = no_column(key, name, table)?;
            if let Some(nearest) = mistake.right() {
                *right = nearest.to_owned();
            }
            mistakes.push(mistake);
        }
        mistakes.into_iter().for_each(|mistake| self.note(mistake.in_list(&list)));
        Ok(Some(columns).filter(|columns| columns.len() == names.len()))
    }

    fn parts_of_a_recipe(&self, table: Option<&Table>) -> Result<Option<Vec<(String, Column)>>> {
        let key = "recipe_columns";
        let Some((table, columns)) = table.zip(self.listed(table, key, &self.row.recipe_columns)?) else {
            return Ok(None);
        };
        let mut parts = Vec::new();
        for (name, column) in columns {
            let Some(column) = self.lasting(Some(table), key, Some(column))? else { continue };
            if Part::of(&column).is_some() {
                parts.push((name, column));
                continue;
            }
            let wrong = format!(
                "column \"{name}\" of {} has type {}, which cannot be a part of a recipe's document",
                table.name, column.type_name
            );
            self.note(Mistake::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, key, wrong, look_at_columns(table)));
        }
        Ok(Some(parts).filter(|parts| Some(parts.len()) == self.row.recipe_columns.as_ref().map(Vec::len)))
    }

    fn expression(&self, key: &'static str, written: &str, table: &Table) -> Result<Option<Expression>> {
        let read = expression::expression(key, written, table)?;
        Ok(read.map_err(|mistake| self.note(mistake.look_at(look_at_columns(table)))).ok())
    }

    fn condition(&self, table: Option<&Table>) -> Result<Option<Option<Expression>>> {
        let (key, Some(written)) = ("condition", &self.row.condition) else { return Ok(Some(None)) };
        let Some(table) = table else { return Ok(None) };
        let Some(found) = self.expression(key, written, table)? else { return Ok(None) };
        if found.type_oid == pg_sys::BOOLOID {
            return Ok(Some(Some(found)));
        }
        let wrong = format!("condition \"{written}\" has type {}, not boolean", Column::made_of(found)?.type_name);
        self.note(Mistake::new(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, key, wrong, look_at_columns(table)));
        Ok(None)
    }

    /// The column, if it is one whose values can be told apart by their texts.
    fn lasting(&self, table: Option<&Table>, key: &'static str, column: Option<Column>) -> Result<Option<Column>> {
        let Some((table, column)) = table.zip(column) else { return Ok(None) };
        let Some(changes_with) = column.text_changes_with()? else { return Ok(Some(column)) };
        let what = match column.expression {
            Some(_) => column.what(),
            None => format!("column \"{}\"", column.name.trim_matches('"')),
        };
        let wrong =
            format!("{what} of {} has type {}, whose text changes with {changes_with}", table.name, column.type_name);
        self.note(Mistake::new(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, key, wrong, look_at_columns(table)));
        Ok(None)
    }

    fn failed_at(&self, target: Option<&Table>, table: Option<&Table>) -> Result<Option<Column>> {
        let (key, written) = ("failed_at_column", &self.row.failed_at_column);
        let Some(table) = table else { return Ok(None) };
        let mut found = table.column(written)?.cloned();
        if found.is_none() && is_expression(written) {
            found = self.made_of(target, None, key, written)?;
            if found.is_none() {
                return Ok(None);
            }
        }
        if let (Some(Column { type_oid: pg_sys::DATEOID, name, expression, .. }), Some(table)) = (&found, target) {
            // A date can be later than any timestamp: such a row never expires.
            let date = format!(
                "(CASE WHEN {name} OPERATOR(pg_catalog.>=) '294277-01-01'::pg_catalog.date THEN 'infinity'::pg_catalog.timestamp
                       ELSE {name}::pg_catalog.timestamp END)"
            );
            let mut column = self.made_of(Some(table), None, key, &date)?;
            // People see what they have written.
            let read = column.as_mut().and_then(|column| column.expression.as_mut());
            read.into_iter().zip(expression).for_each(|(read, written)| read.sql.clone_from(&written.sql));
            return Ok(column);
        }
        if let Some(column) =
            found.as_ref().filter(|column| matches!(column.type_oid, pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID))
        {
            return Ok(Some(column.clone()));
        }
        let (sqlstate, wrong) = match &found {
            Some(column @ Column { type_name, expression: Some(_), .. }) => (
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("{} has type {type_name}, not timestamp, timestamptz or date", column.what()),
            ),
            Some(Column { type_name, .. }) => (
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "column \"{written}\" of {} has type {type_name}, not timestamp, timestamptz or date",
                    table.name
                ),
            ),
            None => (
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{written}\" of {} does not exist", table.name),
            ),
        };
        let mistake = Mistake::new(sqlstate, key, wrong, look_at_columns(table));
        let mistake =
            mistake.there_are("columns of type timestamp, timestamptz or date", &columns(table, TIMES)?, written);
        let of_number = found.as_ref().zip(target).and_then(|(column, target)| instant_of_number(column, target));
        self.note(match of_number {
            Some(instant) => mistake.guess(instant),
            None => mistake,
        });
        Ok(None)
    }

    fn id(&self, table: Option<&Table>) -> Result<Option<Id>> {
        let no_order = |key, name: &str, table: &Table, column: &Column| {
            let wrong =
                format!("column \"{name}\" of {} has type {}, which has no order", table.name, column.type_name);
            Mistake::new(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, key, wrong, look_at_columns(table))
        };
        if self.row.id_columns.is_some() {
            let key = "id_columns";
            let Some((table, columns)) = table.zip(self.listed(table, key, &self.row.id_columns)?) else {
                return Ok(None);
            };
            // A value of another type cannot be read from a document.
            let is_usable = |column: &Column| column.is_ordered() && is_scalar(column.type_oid);
            let unusable: Vec<_> = columns.iter().filter(|(_, column)| !is_usable(column)).collect();
            if unusable.is_empty() {
                return Id::of_several(columns).map(Some);
            }
            unusable.into_iter().for_each(|(name, column)| self.note(no_order(key, name, table, column)));
            return Ok(None);
        }
        let (key, written) = ("id_column", &self.row.id_column);
        let Some((table, column)) = table.zip(self.lasting(table, key, self.column(table, key, written)?)?) else {
            return Ok(None);
        };
        if column.is_ordered() {
            return Ok(Some(Id::of_one(written, column)));
        }
        let mistake = no_order(key, written, table, &column);
        let key_columns = columns(table, PRIMARY_KEY)?;
        self.note(mistake.there_are("columns of the primary key", &key_columns, written).or_only(&key_columns));
        Ok(None)
    }

    fn recipes(&self) -> Result<Option<RecipeTable>> {
        let row = self.row;
        let (table, meant) = self.optional("recipes_table", &row.recipes_table, TABLES_AND_VIEWS)?;
        let here = table.as_ref().or(meant.as_ref());
        let key = self.column(here, "recipe_key_column", &row.recipe_key_column)?;
        let name = self.column(here, "recipe_name_column", &row.recipe_name_column)?;
        let found = table.zip(key).zip(name);
        Ok(found.map(|((table, key), name)| RecipeTable { table, key, name: name.name }))
    }

    fn users(&self) -> Result<Option<Users>> {
        let (table, _) = self.optional("users_table", &self.row.users_table, TABLES_AND_VIEWS)?;
        let key = self.needed("users_table", table.as_ref(), &["id"])?;
        Ok(table.zip(key).map(|(table, key)| Users { key: key.name, table }))
    }

    fn ledger(&self) -> Result<Option<Ledger>> {
        let (table, _) = self.optional("ledger_table", &self.row.ledger_table, WRITABLE)?;
        let names = ["user_id", "amount", "type", "description", "created_at"];
        let created_at = self.needed("ledger_table", table.as_ref(), &names)?;
        Ok(table.zip(created_at).map(|(table, created_at)| Ledger { created_at, table }))
    }

    /// Checks that a table has columns with these names, and returns the last one.
    fn needed(&self, key: &'static str, table: Option<&Table>, names: &[&str]) -> Result<Option<Column>> {
        let Some(table) = table else { return Ok(None) };
        let mut missing = Vec::new();
        let mut last = None;
        for name in names {
            last = table.column(name)?.cloned();
            if last.is_none() {
                missing.push(format!("\"{name}\""));
            }
        }
        if missing.is_empty() {
            return Ok(last);
        }
        let columns = if missing.len() == 1 { "column" } else { "columns" };
        let wrong = format!("{} has no {columns} {}", table.name, missing.join(", "));
        self.note(Mistake::new(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, key, wrong, look_at_columns(table)));
        Ok(None)
    }

    /// The function that takes fingerprints, if the target has them on.
    fn fingerprint_function(&self, table: &Table) -> Result<Option<(String, pg_sys::Oid)>> {
        if !self.row.fingerprint {
            return Ok(None);
        }
        let found = FINGERPRINT.callable_by_owners_of(table)?;
        if found.is_none() {
            let wrong =
                format!("the owner of {} may not call backlog_cleanup_fingerprint() or use its schema", table.name);
            let (code, grant) = (PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, FINGERPRINT.grant_to_owner_of(table)?);
            self.note(Mistake::new(code, "fingerprint", wrong, grant));
        }
        Ok(found)
    }

    fn search_path(&self) {
        if let Some(search_path) = &self.row.search_path
            && with_temporary_last(search_path).is_none()
        {
            let wrong = format!("search path \"{search_path}\" is not a list of schemas with pg_temp at its end");
            let look = "SELECT nspname FROM pg_namespace".into();
            self.note(
                Mistake::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "search_path", wrong, look).or_null(),
            );
        }
    }
}

impl Target {
    /// The columns and expressions that the row names.
    pub fn operands(&self) -> impl Iterator<Item = &Column> {
        let Target { id, account_column, recipe, failed_at, failure_type, status, .. } = self;
        [&id.value, recipe, failed_at, failure_type].into_iter().chain(account_column).chain(status)
    }

    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.operands().filter_map(|operand| operand.expression.as_ref()).chain(&self.meets)
    }

    /// What `reads` is to have: the columns that the row names, and then those that expressions read.
    fn find_reads(&self) -> Result<Vec<(String, Column)>> {
        let named = self.operands().filter(|operand| operand.expression.is_none()).map(|column| column.number);
        let below = self.expressions().flat_map(|expression| expression.columns.iter().copied());
        let mut reads: Vec<(String, Column)> = Vec::new();
        for number in named.chain(below) {
            let is_new = reads.iter().all(|(_, column)| column.number != number);
            if let Some((name, column)) = self.table.numbered(number)?.filter(|_| is_new) {
                reads.push((name.to_owned(), column.clone()));
            }
        }
        Ok(reads)
    }
}
