use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::target::Target;

/// Bytes of a value, which each run keeps.
const LONGEST: usize = 10_000;

/// What a selective run is limited to; no selection means everything.
#[derive(Clone, Copy, Default)]
pub struct Selection<'a> {
    pub recipe_id: Option<&'a str>,
    pub failure_type: Option<&'a str>,
    pub status: Option<&'a str>,
}

impl Selection<'_> {
    /// Errors: 0A000 (nodes cannot tell failure types), 22P02 (a value is not valid for its column), 22023 (its column stores it as another, it is too long, or rows of
    /// the status are out of scope).
    pub fn check(&self, target: &Target) -> Result<()> {
        for (argument, value) in
            [("recipe_id", self.recipe_id), ("failure_type", self.failure_type), ("status", self.status)]
        {
            if value.is_some_and(|value| value.len() > LONGEST) {
                let message = format!("argument \"{argument}\" has more than {LONGEST} bytes");
                let hint = format!("SELECT * FROM backlog_cleanup_status({})", quote_literal(&target.name));
                return Err(error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, hint));
            }
        }
        self.recipe_id.map_or(Ok(()), |recipe_id| target.accepts(&target.recipe, recipe_id))?;
        self.failure_type.map_or(Ok(()), |_| target.finds_failure_types(|| target.set("fingerprint", "false")))?;
        let failure_type = self.failure_type.filter(|_| !target.has_failure_type_in_text());
        failure_type.map_or(Ok(()), |failure_type| target.accepts(&target.failure_type, failure_type))?;
        self.status.map_or(Ok(()), |status| target.written_status(status).map(drop))
    }

    /// The condition on a row `g` that it is selected; never NULL.
    pub fn matches(&self, target: &Target) -> String {
        let recipe = self.recipe_id.map(|recipe_id| target.is_of_recipe(recipe_id));
        let failure_type =
            self.failure_type.map(|failure_type| target.has_failure_type(&target.written_failure_type(failure_type)));
        let status = self.status.map(|status| target.has_status(status));
        let conditions: Vec<String> = recipe.into_iter().chain(failure_type).chain(status).collect();
        match conditions.is_empty() {
            true => "true".to_owned(),
            false => format!("({}) IS TRUE", conditions.join(" AND ")),
        }
    }
}
