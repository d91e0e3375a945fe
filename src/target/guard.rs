//! Rows for which an expression of their target fails. They stay, and no statement asks for the value: it would fail again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use backlog_cleanup_report::counted;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, quote_literal};

use crate::postgres::arguments::arguments;
use crate::postgres::collation::collate;
use crate::postgres::elsewhere::was_elsewhere;
use crate::postgres::error::{Result, error, spi};
use crate::postgres::expression::Expression;
use crate::postgres::met::is_about_a_row;
use crate::postgres::names::{Object, naming};
use crate::postgres::retold::OWN;
use crate::postgres::sqlstate::{exact, unheard};
use crate::postgres::subtransaction::{briefly, caught, or_nothing, raise_again, reported, sqlstate};
use crate::target::Target;
use crate::target::own::HAS_VALUE;

/// Statements that read an expression, by the expression and the types and collations of its columns.
type Statements = HashMap<(String, Vec<(pg_sys::Oid, pg_sys::Oid)>), Rc<OwnedPreparedStatement>>;

/// So many are kept.
const KEPT: usize = 100;

thread_local! {
    /// What has failed since a report or a run has begun; `None` outside of both, where a failure is an error.
    static FAILED: RefCell<Option<Vec<Failed>>> = const { RefCell::new(None) };
    /// The expressions that read rows, of the targets that were loaded since.
    static LOADED: RefCell<Vec<Failed>> = RefCell::default();
    /// What has failed in the batches of the run of this process.
    static OF_RUN: RefCell<(i64, Vec<Failed>)> = RefCell::default();
    /// Of the report or run: a label of a constant may have another name in the next.
    static STATEMENTS: RefCell<Statements> = RefCell::default();
}

/// An expression that has failed for a row.
#[derive(Clone)]
pub(super) struct Failed {
    pub(super) target: String,
    /// As the target has it.
    sql: String,
    /// The same of a row `g`.
    of_row: String,
    /// What its statements may name: as those of the table that it is on.
    named: Vec<Object>,
    /// The columns that it reads, quoted, and their types and collations.
    columns: Vec<(String, (pg_sys::Oid, pg_sys::Oid))>,
    pub(super) met: Unreadable,
}

/// Rows for which an expression fails, and what the first of them has met.
#[derive(Clone, Default)]
pub struct Unreadable {
    pub rows: i64,
    /// Five characters.
    pub sqlstate: String,
    pub message: String,
    pub hint: String,
    /// Its id as text.
    pub row: Option<String>,
}

/// Returns whether an expression, which calls the row `g`, has a value for a row of the columns that it reads: it does not fail. The columns
/// are arguments, and no row: nothing reads a value that the expression does not read, or puts all of them into one. Runs as the
/// caller. Errors: 55000 outside of statements of this extension.
#[pg_extern(sql = r#"
CREATE FUNCTION backlog_cleanup_has_value(expression text, VARIADIC columns "any") RETURNS boolean
    STABLE PARALLEL UNSAFE COST 1000 LANGUAGE c /* Rust */ AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn backlog_cleanup_has_value(fcinfo: pg_sys::FunctionCallInfo) -> Result<bool> {
    // SAFETY: the current call, whose first argument is a text.
    let (expression, columns) = unsafe { (pgrx::fcinfo::pg_getarg::<&str>(fcinfo, 0), arguments(fcinfo, 1)) };
    let known = failed().into_iter().find(|failed| Some(failed.of_row.as_str()) == expression);
    // To columns of other types, with which somebody's code asks, the expression means something else.
    let Some(known) = known.filter(|failed| failed.types().eq(columns.iter().map(DatumWithOid::oid))) else {
        return Err(error(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "function backlog_cleanup_has_value is for statements of backlog_cleanup".into(),
            "SELECT * FROM backlog_cleanup_doctor()".into(),
        ));
    };
    let read = || {
        let statement = statement(&known)?;
        Spi::connect(|client| client.select(&*statement, None, &columns).map(drop)).map_err(spi)
    };
    // Somebody's code may call it, and no error of the statement around is to be forgotten.
    unheard(|| match naming(known.named.clone(), || briefly(read)) {
        Ok(()) => Ok(true),
        Err(failure) if is_about_a_row(&failure, &exact(sqlstate(&failure))) => Ok(false),
        Err(failure) => raise_again(failure),
    })
}

/// The statement that reads an expression of columns `$1`, `$2` and so on.
fn statement(failed: &Failed) -> Result<Rc<OwnedPreparedStatement>> {
    let key = (failed.of_row.clone(), failed.columns.iter().map(|(_, read)| *read).collect::<Vec<_>>());
    if let Some(known) = STATEMENTS.with_borrow(|known| known.get(&key).cloned()) {
        return Ok(known);
    }
    let mut columns = Vec::new();
    for (place, (name, (type_oid, collation))) in failed.columns.iter().enumerate() {
        // SAFETY: a look-up in the system cache.
        let is_default = unsafe { pg_sys::get_typcollation(*type_oid) } == *collation;
        let collate = if is_default { String::new() } else { collate(*collation)? };
        columns.push(format!("${}{collate} AS {name}", place + 1));
    }
    let columns = columns.join(", ");
    let text = format!("SELECT ({}) IS NULL FROM (SELECT {columns}) g", failed.of_row);
    let types: Vec<PgOid> = failed.types().map(PgOid::from).collect();
    let prepared = Spi::connect(|client| client.prepare(text.as_str(), &types).map(|made| made.keep()));
    let prepared = Rc::new(prepared.map_err(spi)?);
    let replaced = STATEMENTS.with_borrow_mut(|known| {
        let replaced = if known.len() < KEPT { HashMap::new() } else { std::mem::take(known) };
        (replaced, known.insert(key, prepared.clone()))
    });
    drop(replaced);
    Ok(prepared)
}

/// Does `work` in a subtransaction. If an expression fails for a row that it reads, does it again without such rows, and tells of them in a
/// WARNING. Where nobody can say which, it reads no value without its guard.
pub fn without_unreadable_rows<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    let _around = Around::of(Vec::new());
    loop {
        let known = failed().len();
        match caught(|| or_nothing(&work)) {
            Ok(done) => {
                failed().iter().for_each(Failed::warn);
                return Ok(done);
            }
            Err(failure) if failed().len() == known && !guard_all(&failure) => raise_again(failure),
            Err(_) => (),
        }
    }
}

/// Does `work` on a batch of a run without the rows for which expressions have failed in earlier ones. What fails in it is remembered.
pub fn in_a_batch<T>(run_id: i64, work: impl FnOnce() -> T) -> T {
    let before = OF_RUN.take();
    let _around = Around::of(if before.0 == run_id { before.1 } else { Vec::new() });
    let done = work();
    OF_RUN.set((run_id, failed()));
    done
}

/// Whether an expression may have met this failure.
pub(super) fn is_of_an_expression(failure: &CaughtError) -> bool {
    is_about_a_row(failure, &exact(sqlstate(failure)))
        // A refusal of this extension is about no row.
        && reported(failure).function_name() != Some(OWN)
        && !was_elsewhere(failure)
}

/// Guards all expressions, as one of them may have met this failure: of a row that code of the run has changed, or another session meanwhile,
/// or that is not of the account. Returns whether some had no guard.
pub(super) fn guard_all(failure: &CaughtError) -> bool {
    if !is_of_an_expression(failure) {
        return false;
    }
    let sqlstate = exact(sqlstate(failure));
    FAILED.with_borrow_mut(|failed| {
        let Some(failed) = failed else { return false };
        let known = failed.len();
        for mut loaded in LOADED.take() {
            if failed.iter().any(|failed| failed.is_same(&loaded)) {
                continue;
            }
            // Its message may have values of rows of others.
            loaded.met = Unreadable {
                sqlstate: sqlstate.clone(),
                message: format!(
                    "an expression of target \"{}\" fails for a row with SQLSTATE {sqlstate}",
                    loaded.target
                ),
                hint: format!("SELECT * FROM backlog_cleanup_doctor({})", quote_literal(&loaded.target)),
                ..Unreadable::default()
            };
            failed.push(loaded);
        }
        failed.len() > known
    })
}

/// What has failed.
pub(super) fn failed() -> Vec<Failed> {
    FAILED.with_borrow(|failed| failed.clone().unwrap_or_default())
}

/// Restores what was there before, also after an error: code of a run may ask for a report.
struct Around {
    failed: Option<Vec<Failed>>,
    loaded: Vec<Failed>,
}

impl Around {
    fn of(failed: Vec<Failed>) -> Around {
        STATEMENTS.take();
        Around { failed: FAILED.replace(Some(failed)), loaded: LOADED.take() }
    }
}

impl Drop for Around {
    fn drop(&mut self) {
        FAILED.set(self.failed.take());
        LOADED.set(std::mem::take(&mut self.loaded));
    }
}

impl Unreadable {
    /// For people.
    pub fn said(&self, target: &Target) -> String {
        let message: String = self.message.chars().take(1_000).collect();
        let stay = if self.rows == 1 { "stays" } else { "stay" };
        format!("{} {stay}: {message}", counted(self.rows, &target.nouns.row_word))
    }
}

impl Failed {
    fn types(&self) -> impl Iterator<Item = pg_sys::Oid> + use<'_> {
        self.columns.iter().map(|(_, (type_oid, _))| *type_oid)
    }

    fn is_same(&self, other: &Failed) -> bool {
        self.target == other.target && self.sql == other.sql
    }

    fn warn(&self) {
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, self.met.message.clone(), "backlog_cleanup")
            .set_detail("Rows for which it fails stay, and are not counted.")
            .set_hint(self.met.hint.clone())
            .report(PgLogLevel::WARNING);
    }
}

impl Expression {
    /// The expression of a row that statements call `g`; NULL if it has no value for the row.
    pub fn of_row(&self) -> String {
        match &self.guard {
            Some(guard) => format!("(CASE WHEN {guard} THEN {} END)", self.of_row),
            None => self.of_row.clone(),
        }
    }
}

impl Target {
    /// Notes that an expression fails for a row. The next time that the target is loaded, its statements ask for no such value.
    pub fn guard(&self, expression: &Expression, met: Unreadable) {
        let noted = self.failed(expression, met);
        FAILED.with_borrow_mut(|failed| {
            // Once: where the owner may not call what guards it, it fails again.
            if let Some(failed) = failed.as_mut().filter(|failed| !failed.iter().any(|failed| failed.is_same(&noted))) {
                failed.push(noted);
            }
        });
    }

    fn failed(&self, expression: &Expression, met: Unreadable) -> Failed {
        Failed {
            target: self.name.clone(),
            sql: expression.sql.clone(),
            of_row: expression.of_row.clone(),
            named: self.table.named_with_it(),
            columns: expression
                .columns
                .iter()
                .filter_map(|number| self.reads.iter().find(|(_, column)| column.number == *number))
                .map(|(_, column)| (column.name.clone(), (column.type_oid, column.collation)))
                .collect(),
            met,
        }
    }

    /// Guards the expressions that have failed, if the table's owner may call what guards them.
    pub(super) fn with_guards(mut self) -> Result<Target> {
        if FAILED.with_borrow(Option::is_some) {
            let read = self.expressions().filter(|expression| !expression.columns.is_empty());
            let loaded = read.map(|expression| self.failed(expression, Unreadable::default())).collect::<Vec<_>>();
            LOADED.with_borrow_mut(|all| {
                all.retain(|known| loaded.iter().all(|loaded| !loaded.is_same(known)));
                all.extend(loaded);
            });
        }
        let mut failed = failed();
        failed.retain(|failed| failed.target == self.row.name);
        if failed.is_empty() {
            return Ok(self);
        }
        let Some((function, oid)) = HAS_VALUE.callable_by_owners_of(&self.table)? else {
            return Ok(self);
        };
        let Target { recipe, failed_at, failure_type, status, meets, .. } = &mut self;
        let operands = [recipe, failed_at, failure_type].into_iter().chain(status);
        let expressions = operands.filter_map(|operand| operand.expression.as_mut()).chain(meets);
        for expression in expressions {
            let Some(failed) = failed.iter().find(|failed| failed.sql == expression.sql) else { continue };
            let columns: Vec<String> = failed.columns.iter().map(|(name, _)| format!("g.{name}")).collect();
            let columns = columns.join(", ");
            expression.guard = Some(format!("{function}({}, {columns})", quote_literal(&expression.of_row)));
        }
        let named = self.table.named.iter().copied().chain([(pg_sys::ProcedureRelationId, oid)]);
        self.table.named = named.collect::<Vec<_>>().into();
        Ok(self)
    }

    /// The conditions on a row `g` that its recipe, time and failure type can be read.
    pub(super) fn can_be_read(&self) -> impl Iterator<Item = String> {
        let operands = [&self.recipe, &self.failed_at, &self.failure_type];
        operands.into_iter().filter_map(|operand| operand.expression.as_ref()?.guard.clone())
    }

    /// The condition on a row `g` that no expression of the target fails for it, as far as it is guarded.
    pub fn is_readable(&self) -> String {
        let guards: Vec<String> = self.expressions().filter_map(|expression| expression.guard.clone()).collect();
        if guards.is_empty() { "true".into() } else { guards.join(" AND ") }
    }

    /// Whether an expression of it has failed for a row.
    pub fn is_guarded(&self) -> bool {
        self.expressions().any(|expression| expression.guard.is_some())
    }

    /// Whether it has an expression that reads the row.
    pub fn has_expressions(&self) -> bool {
        self.expressions().any(|expression| !expression.columns.is_empty())
    }
}
