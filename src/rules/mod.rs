//! Which rows a run may remove, and how many: policies, selections, the breaker. Knows nothing of ranks.

pub mod breaker;
mod checked;
pub mod matching;
pub mod named;
pub mod policy;
pub mod selection;
pub mod written;

use std::rc::Rc;

use backlog_cleanup_report::Mode;

use crate::postgres::error::Result;
use crate::rules::matching::Policies;
use crate::rules::selection::Selection;
use crate::target::Target;

/// What a run removes.
pub struct Rules<'a> {
    pub target: &'a Target,
    pub selection: Selection<'a>,
    pub mode: Mode,
    pub policies: Rc<Policies>,
    /// Whether an emergency run removes held rows, too.
    pub include_held: bool,
}

impl<'a> Rules<'a> {
    /// Those of a regular run of all of a target.
    pub fn of_all(target: &'a Target) -> Result<Rules<'a>> {
        let policies = Rc::new(Policies::of(target, Mode::Regular)?);
        Ok(Rules { target, selection: Selection::default(), mode: Mode::Regular, policies, include_held: false })
    }

    /// The same without the policies that name a failure type: for what is the same under any policy, such as the rows in scope.
    pub fn without_failure_types(self) -> Rules<'a> {
        let others = self.policies.list.iter().filter(|policy| policy.names.failure_type.is_none());
        Rules { policies: Rc::new(Policies::new(others.cloned().collect())), ..self }
    }
}

impl Rules<'_> {
    pub fn is_regular(&self) -> bool {
        self.mode == Mode::Regular
    }

    /// Whether a regular run removes nothing, since no policy is enabled.
    pub fn is_disabled(&self) -> bool {
        self.is_regular() && self.policies.list.iter().all(|policy| !policy.is_enabled)
    }

    /// The condition on a row `g` that it is in scope and selected.
    pub fn is_selected(&self) -> String {
        format!("{} AND {}", self.target.is_failed(), self.selection.matches(self.target))
    }

    /// The condition on a row `g` that it is held and stays; `None` if there are no such rows.
    pub fn is_held(&self) -> Option<String> {
        if self.include_held { None } else { self.policies.is_held(self.target) }
    }

    /// The condition on a row `g` that the run may remove it: it is in scope, selected and not held, and in a regular run old
    /// under some policy. A regular run also needs the row's rank under its own.
    pub fn condition(&self) -> String {
        let mut condition = self.is_selected();
        if self.is_regular() {
            condition += &format!(" AND {}", self.target.failed_before(self.policies.latest_cutoff().as_str()));
        }
        if let Some(held) = self.is_held() {
            condition += &format!(" AND NOT ({held})");
        }
        condition
    }
}
