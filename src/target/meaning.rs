use pgrx::pg_sys;

use crate::postgres::acting::who;
use crate::postgres::error::Result;
use crate::postgres::table::Column;
use crate::target::expression::expression;
use crate::target::{Target, TargetRow};

/// What a statement has done to what a name is compared with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing.
    None,
    /// Another value, under which a name may mean the same: a renamed column, another table.
    Value,
    /// A name means other rows.
    Meaning,
}

/// The changes of a target since its row before.
pub struct Changes {
    pub recipe: Change,
    pub failure_type: Change,
    pub status: Change,
}

impl Target {
    /// A column of another name is the same one if the old name is gone. Documents of several columns have the names in them.
    pub fn changes_since(&self, before: &TargetRow) -> Result<Changes> {
        let moved = if self.generations_table == before.generations_table { Change::None } else { Change::Value };
        let of = |was: &Option<String>, is: &Option<String>, key: &'static str, column: Option<&Column>| {
            Ok(match was {
                _ if was == is => moved,
                Some(written) if self.is_the_guarded(written, key, column)? => moved,
                Some(written) if written.starts_with('(') || self.table.column(written)?.is_some() => Change::Meaning,
                _ => Change::Value,
            })
        };
        let recipe = match (&before.recipe_columns, &self.recipe_columns) {
            (None, None) => of(&before.recipe_column, &self.recipe_column, "recipe_column", Some(&self.recipe))?,
            (was, is) if was == is => moved,
            (Some(_), Some(_)) => Change::Value,
            (None, Some(_)) if before.recipe_column.is_none() => Change::Value,
            _ => Change::Meaning,
        };
        let has_fingerprints = before.failure_type_column.is_some() && self.has_failure_type_in_text();
        let failure_type = match before.fingerprint != self.fingerprint && has_fingerprints {
            true => Change::Meaning,
            false => {
                let (was, is) = (&before.failure_type_column, &self.failure_type_column);
                of(was, is, "failure_type_column", Some(&self.failure_type))?
            }
        };
        let status = of(&before.status_column, &self.status_column, "status_column", self.status.as_ref())?;
        let status = if before.statuses != self.statuses && status == Change::None { Change::Value } else { status };
        Ok(Changes { recipe, failure_type, status })
    }
    /// Whether a column is the expression `was` where it can be read, and NULL elsewhere: where it has a value, it has the same.
    fn is_the_guarded(&self, was: &str, key: &'static str, column: Option<&Column>) -> Result<bool> {
        let Some(is) = column.and_then(|column| column.expression.as_ref()).filter(|_| was.starts_with('(')) else {
            return Ok(false);
        };
        let (caller, _) = who();
        // Who calls says what it was. To read it is to do what its owner may.
        // SAFETY: both roles exist while the caller's statement runs.
        if !unsafe { pg_sys::has_privs_of_role(caller, self.table.owner) } {
            return Ok(false);
        }
        let Ok(was) = expression(key, was, &self.table)? else { return Ok(false) };
        let Some((_, guarded)) = self.guarded(&was)? else { return Ok(false) };
        Ok(expression(key, &guarded, &self.table)?.is_ok_and(|guarded| guarded.sql == is.sql))
    }
}
