//! Which rows a run may remove, and how many: policies, selections, the breaker. Knows nothing of ranks.

pub mod breaker;
pub mod policy;
pub mod selection;

use backlog_cleanup_report::Mode;

use crate::rules::policy::Cutoff;
use crate::rules::selection::Selection;
use crate::target::Target;

/// What a run removes.
pub struct Rules<'a> {
    pub target: &'a Target,
    pub selection: Selection<'a>,
    /// Of a regular run; an emergency run has none.
    pub cutoff: Option<Cutoff>,
}

impl Rules<'_> {
    pub fn mode(&self) -> Mode {
        if self.cutoff.is_some() { Mode::Regular } else { Mode::Emergency }
    }

    /// Whether the default policy is disabled: the run removes nothing.
    pub fn is_disabled(&self) -> bool {
        self.cutoff.as_ref().is_some_and(|cutoff| cutoff.instant().is_none())
    }

    /// The condition on a row `g` that the run may remove it: it is in scope, selected, and in a regular run expired. A
    /// regular run also needs the row's rank.
    pub fn condition(&self) -> String {
        let is_expired =
            self.cutoff.as_ref().map_or("true".into(), |cutoff| self.target.failed_before(cutoff.as_str()));
        format!("{} AND {is_expired} AND {}", self.target.is_failed(), self.selection.matches(self.target))
    }
}
