use pgrx::pg_sys::panic::CaughtError;

use crate::postgres::error::Result;
use crate::postgres::expression::Expression;
use crate::postgres::read::read_one;
use crate::postgres::sqlstate::unheard;
use crate::target::Target;
use crate::target::failing::Rows;
use crate::target::guard::{Unreadable, failed, guard_all, is_of_an_expression};
use crate::target::leaf::{Leaf, Reach, leaves};

impl Target {
    /// Reads the values of all expressions. Errors: that of the first row for which one fails.
    pub fn read_values(&self, leaf: &Leaf) -> Result<()> {
        self.read_rows(&Rows {
            table: &leaf.table,
            from: &format!("{} g", leaf.rows()),
            have_positions: leaf.reach == Reach::Position,
        })
    }

    /// The rows that stay since an expression fails for them; `None` if there are none.
    pub fn unreadable(&self, leaves: &[Leaf]) -> Result<Option<Unreadable>> {
        let Some(failed) = failed().into_iter().find(|failed| failed.target == self.name) else { return Ok(None) };
        let [account, status, condition] = [self.is_of_account(), self.may_have_failed(), self.may_be_met()];
        let conditions = format!("{account} AND {status} AND {condition} AND NOT ({})", self.is_readable());
        let mut found = failed.met;
        for leaf in leaves {
            let count = format!("SELECT pg_catalog.count(*) FROM {} g WHERE {conditions}", leaf.rows());
            found.rows += leaf.reading_as_owner(self, || read_one::<i64>(&count, &[]))?.unwrap_or_default();
        }
        Ok((found.rows > 0).then_some(found))
    }

    /// The condition on a row `g` that it has failed, or that its status cannot be read.
    pub fn may_have_failed(&self) -> String {
        unless_unread(self.status.as_ref().and_then(|status| status.expression.as_ref()), self.has_failed())
    }

    /// The same of the target's condition.
    pub fn may_be_met(&self) -> String {
        unless_unread(self.meets.as_ref(), self.meets.as_ref().map_or("true".into(), Expression::of_row))
    }

    /// Whether a batch that has failed would not if it were done again: an expression fails for a row, which is noted only now.
    pub fn has_failed_to_read(&self, failure: &CaughtError) -> Result<bool> {
        if !self.has_expressions() || !is_of_an_expression(failure) {
            return Ok(false);
        }
        let (known, leaves) = (failed().len(), leaves(self)?);
        // What fails is noted.
        let _ = unheard(|| leaves.iter().try_for_each(|leaf| self.read_values(leaf)));
        Ok(failed().len() > known || guard_all(failure))
    }
}

/// A condition that a row meets, too, for which the expression that it reads fails.
fn unless_unread(expression: Option<&Expression>, condition: String) -> String {
    match expression.and_then(|expression| expression.guard.as_ref()) {
        Some(guard) => format!("(NOT {guard} OR {condition})"),
        None => condition,
    }
}
