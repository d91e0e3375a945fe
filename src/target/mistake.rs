use std::borrow::Cow;

use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use serde_json::{Map, Value};

use crate::extension;
use crate::postgres::error::{Result, error};
use crate::postgres::now::one_now;
use crate::postgres::subtransaction::{is_cancel, sqlstate};
use crate::target::TargetRow;
use crate::target::nearest::nearest;

/// What is wrong with one column of a target's row.
pub struct Mistake {
    sqlstate: PgSqlErrorCode,
    /// The column of `backlog_cleanup.target`.
    pub column: Cow<'static, str>,
    wrong: String,
    /// What there is instead, for people.
    instead: Option<String>,
    /// The value that is right: a string, a list of strings, a boolean or null.
    right: Option<Value>,
    /// Whether that is a guess, such as a name that is near. It is good for what is being written. Of what is stored nobody can guess: a
    /// table of such a name may be another team's.
    is_guess: bool,
    /// The statement that shows what there is, for a mistake that only a person can correct.
    look: String,
}

impl Mistake {
    pub fn new(sqlstate: PgSqlErrorCode, column: impl Into<Cow<'static, str>>, wrong: String, look: String) -> Mistake {
        Mistake { sqlstate, column: column.into(), wrong, instead: None, right: None, is_guess: false, look }
    }

    /// A mistake that an error with this SQLSTATE tells.
    pub fn of(sqlstate: PgSqlErrorCode, column: &'static str, failure: &ErrorReport) -> Mistake {
        let look = failure.hint().unwrap_or("SELECT * FROM backlog_cleanup.target").to_owned();
        Mistake::new(sqlstate, column, failure.message().to_owned(), look)
    }

    /// What a failure says of a column's value. Failures that say nothing of it are raised again.
    pub fn caught(key: &'static str, what: &str, failure: CaughtError) -> Mistake {
        // The hint of somebody's code is nothing to type.
        let look = |hint: Option<&str>| hint.unwrap_or("SELECT * FROM backlog_cleanup.target").to_owned();
        match sqlstate(&failure) {
            _ if is_cancel(&failure) => failure.rethrow(),
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
            | PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY
            | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
            | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED => failure.rethrow(),
            code => match &failure {
                CaughtError::ErrorReport(report) => {
                    Mistake::new(code, key, format!("{what}{}", report.message()), look(report.hint()))
                }
                CaughtError::PostgresError(report) => {
                    Mistake::new(code, key, format!("{what}{}", report.message()), look(None))
                }
                _ => failure.rethrow(),
            },
        }
    }

    /// The statement that shows what there is.
    pub fn look_at(mut self, look: String) -> Mistake {
        self.look = look;
        self
    }

    /// The names that there are. The nearest one to `written` is taken to be right.
    pub fn there_are<T: AsRef<str>>(mut self, what: &str, names: &[T], written: &str) -> Mistake {
        let right = nearest(written, names);
        if let Some(name) = right {
            (self.right, self.is_guess) = (Some(name.as_ref().into()), true);
        }
        let nearest = right.map(|name| format!("the nearest is {}", name.as_ref()));
        self.instead = match names {
            [] => None,
            [only] => Some(format!("there is {}", only.as_ref())),
            _ if names.len() > SHOWN => nearest,
            _ => {
                let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
                let all = format!("the {what} are {}", names.join(", "));
                Some(std::iter::once(all).chain(nearest).collect::<Vec<_>>().join("; "))
            }
        };
        self
    }

    /// Of the default target, whose table is not there: names the other targets, or else says how to add one.
    pub fn or_another_target(mut self, others: Vec<String>) -> Mistake {
        self.look = match others.first() {
            Some(other) => {
                self.instead = Some(match others.len() {
                    1 => format!("the other target is \"{other}\""),
                    _ => format!("the other targets are \"{}\"", others.join("\", \"")),
                });
                format!("SELECT * FROM backlog_cleanup_doctor({})", quote_literal(other))
            }
            None => {
                "INSERT INTO backlog_cleanup.target (name, generations_table, recipes_table, users_table, ledger_table, account_column, account) \
                 VALUES ('jobs', 'schema.table', NULL, NULL, NULL, NULL, NULL)"
                    .into()
            }
        };
        self
    }

    /// This value may be right.
    pub fn guess(self, right: String) -> Mistake {
        Mistake { right: Some(right.into()), is_guess: true, ..self }
    }

    /// If there is only one name, it is right, unless there is something better.
    pub fn or_only<T: AsRef<str>>(mut self, names: &[T]) -> Mistake {
        if let (None, [only]) = (&self.right, names) {
            (self.right, self.is_guess) = (Some(only.as_ref().into()), true);
        }
        self
    }

    /// What is right for another mistake is right for this one.
    pub fn corrected_as(self, other: &Mistake) -> Mistake {
        Mistake { right: other.right.clone(), is_guess: other.is_guess, look: other.look.clone(), ..self }
    }

    /// The value that is right.
    pub fn correct(&self) -> Option<&Value> {
        self.right.as_ref()
    }

    /// The string that is right.
    pub fn right(&self) -> Option<&str> {
        self.right.as_ref().and_then(Value::as_str)
    }

    /// The column is a list, and right as this one, if what was wrong in it has something right.
    pub fn in_list(self, list: &[String]) -> Mistake {
        Mistake { right: self.right.map(|_| list.into()), ..self }
    }

    /// Whether what is right is a list without this value.
    pub fn leaves_out(&self, value: &str) -> bool {
        let list = self.right.as_ref().and_then(Value::as_array);
        self.column == "statuses" && list.is_some_and(|list| !list.iter().any(|right| right == value))
    }

    /// The column, which has its default, is right as NULL in a new row, unless there is something better.
    pub fn or_left_out(mut self) -> Mistake {
        if self.right.is_none() {
            (self.right, self.is_guess) = (Some(Value::Null), true);
        }
        self
    }

    /// The column is right as NULL, unless there is something better.
    pub fn or_null(self) -> Mistake {
        self.or(Value::Null)
    }

    /// The column is right with this value, unless there is something better.
    pub fn or(mut self, right: Value) -> Mistake {
        self.right = self.right.or(Some(right));
        self
    }
}

/// How many names a message lists.
const SHOWN: usize = 20;

impl TargetRow {
    /// One error for all mistakes. Its hint corrects the row as it was `before` the statement that fails, with what else that
    /// statement has changed: an empty object if it inserts the row, `None` if it changes nothing.
    pub fn refusal(&self, mistakes: &[Mistake], before: Option<&str>) -> ErrorReport {
        let line = |mistake: &Mistake| {
            let instead = mistake.instead.as_ref().map(|instead| format!("; {instead}")).unwrap_or_default();
            format!("{}: {}{instead}", mistake.column, mistake.wrong)
        };
        let (sqlstate, message, detail) = match mistakes {
            [Mistake { sqlstate, column, wrong, instead, .. }] => {
                (*sqlstate, format!("{wrong} ({column} of target \"{}\")", self.name), instead.clone())
            }
            _ => (
                mistakes.first().map_or(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, |first| first.sqlstate),
                format!("target \"{}\" has {} mistakes", self.name, mistakes.len()),
                Some(mistakes.iter().map(line).collect::<Vec<_>>().join("\n")),
            ),
        };
        match (self.correction(mistakes, before), detail) {
            (Err(failure), _) => failure,
            (Ok(hint), None) => error(sqlstate, message, hint),
            (Ok(hint), Some(detail)) => error(sqlstate, message, hint).set_detail(detail),
        }
    }

    fn correction(&self, mistakes: &[Mistake], before: Option<&str>) -> Result<String> {
        let is_new = before == Some("{}");
        let was: Map<String, Value> = before.and_then(|before| serde_json::from_str(before).ok()).unwrap_or_default();
        let is_stored = |column: &str| !is_new && self.document.get(column) == was.get(column);
        // Columns of another table are guessed as those of a new target are.
        let is_stored = |column: &str| is_stored(column) && is_stored("generations_table");
        let is_unknown = |mistake: &&Mistake| match &mistake.right {
            None => true,
            // What is left out of a new row, nobody has wanted.
            Some(Value::Null) => mistake.is_guess && !is_new,
            Some(_) => mistake.is_guess && (before.is_none() || is_stored(&mistake.column)),
        };
        if let Some(Mistake { look, .. }) = mistakes.iter().find(is_unknown) {
            return Ok(look.clone());
        }
        // What has the default is left out of an INSERT, and what is as before of an UPDATE.
        const CORRECTION: &str = "
            SELECT CASE WHEN is_new
                THEN format('INSERT INTO backlog_cleanup.target (%s) VALUES (%s)', string_agg(quote_ident(key), ', ' ORDER BY attnum),
                            string_agg(quote_nullable(value), ', ' ORDER BY attnum))
                ELSE format('UPDATE backlog_cleanup.target SET %s WHERE name = %L',
                            string_agg(format('%I = %s', key, quote_nullable(value)), ', ' ORDER BY attnum), min(was ->> 'name'))
                END
            FROM jsonb_populate_record(NULL::backlog_cleanup.target, $1) t
            CROSS JOIN to_jsonb(jsonb_populate_record(t, coalesce($3::jsonb, '{}'))) was
            CROSS JOIN coalesce($3::jsonb = '{}', false) is_new
            CROSS JOIN jsonb_each(to_jsonb(t) || $2) written (key, document)
            CROSS JOIN LATERAL (
                SELECT CASE WHEN jsonb_typeof(document) = 'array'
                            THEN ARRAY(SELECT jsonb_array_elements_text(document))::text ELSE document #>> '{}' END
            ) as_text (value)
            JOIN pg_attribute ON attrelid = 'backlog_cleanup.target'::regclass AND attname = key
            LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
            CROSS JOIN pg_get_expr(adbin, adrelid) given
            WHERE key NOT IN ('named_by', 'named_at')
              AND CASE WHEN is_new
                  THEN given IS DISTINCT FROM value AND given IS DISTINCT FROM format('%L::%s', value, format_type(atttypid, -1))
                  ELSE $2 ? key OR document IS DISTINCT FROM was -> key
                  END
            GROUP BY is_new";
        let right = mistakes.iter().filter_map(|mistake| Some((mistake.column.to_string(), mistake.right.clone()?)));
        let arguments = &[
            pgrx::JsonB(self.document.clone()).into(),
            pgrx::JsonB(Value::Object(right.collect())).into(),
            before.into(),
        ];
        let correction = extension::as_owner(|| one_now::<String>(CORRECTION, arguments))?;
        Ok(correction.unwrap_or_default())
    }
}
