use pgrx::pg_sys::panic::CaughtError;

use crate::postgres::error::Result;
use crate::postgres::met::is_about_a_row;
use crate::postgres::read::read_one;
use crate::postgres::sqlstate::{exact, unheard};
use crate::postgres::subtransaction::sqlstate;
use crate::target::Target;
use crate::target::failing::Rows;
use crate::target::guard::{Unreadable, failed, guard_all};
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
        let of_status = match self.status.as_ref().and_then(|status| status.expression.as_ref()?.guard.clone()) {
            Some(guard) => format!("(NOT {guard} OR {})", self.has_failed()),
            None => self.has_failed(),
        };
        let of_condition = self.meets.as_ref().map(|condition| match &condition.guard {
            Some(guard) => format!("(NOT {guard} OR {})", condition.of_row()),
            None => condition.of_row(),
        });
        let conditions = [self.is_of_account(), of_status].into_iter().chain(of_condition);
        let conditions = conditions.chain([format!("NOT ({})", self.is_readable())]).collect::<Vec<_>>().join(" AND ");
        let mut found = failed.met;
        for leaf in leaves {
            let count = format!("SELECT pg_catalog.count(*) FROM {} g WHERE {conditions}", leaf.rows());
            found.rows += leaf.reading_as_owner(self, || read_one::<i64>(&count, &[]))?.unwrap_or_default();
        }
        Ok((found.rows > 0).then_some(found))
    }

    /// Whether a batch that has failed would not if it were done again: an expression fails for a row, which is noted only now.
    pub fn has_failed_to_read(&self, failure: &CaughtError) -> Result<bool> {
        if !self.has_expressions() || !is_about_a_row(failure, &exact(sqlstate(failure))) {
            return Ok(false);
        }
        let (known, leaves) = (failed().len(), leaves(self)?);
        // What fails is noted.
        let _ = unheard(|| leaves.iter().try_for_each(|leaf| self.read_values(leaf)));
        Ok(failed().len() > known || guard_all(failure))
    }
}
