use serde::Serialize;

use crate::client::calls;

/// The rows to remove.
#[derive(Clone, Serialize)]
pub struct Selection {
    /// A row of backlog_cleanup.target.
    pub target: String,
    pub recipe_id: Option<String>,
    pub failure_type: Option<String>,
    pub status: Option<String>,
    /// In an emergency run, those that policies hold, too.
    pub include_held: bool,
}

impl Selection {
    /// The selection as an argument of a call.
    pub fn as_call(&self) -> calls::Selection<'_> {
        calls::Selection {
            target: &self.target,
            recipe_id: self.recipe_id.as_deref(),
            failure_type: self.failure_type.as_deref(),
            status: self.status.as_deref(),
        }
    }
}
