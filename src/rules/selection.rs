use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::postgres::subtransaction::{briefly, raise_again, sqlstate};
use crate::rules::policy::Names;
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

impl<'a> Selection<'a> {
    pub fn of(names: &'a Names) -> Selection<'a> {
        let Names { recipe_id, failure_type, status } = names;
        Selection { recipe_id: recipe_id.as_deref(), failure_type: failure_type.as_deref(), status: status.as_deref() }
    }

    /// The same as the rows of a target have the values: they may be written as their types read them. A failure type stays as it is: what
    /// compares it reads it. Errors: 0A000 (nodes cannot tell failure types), 22P02 (a value is not valid for its column), 22023 (no row
    /// can have it, it is too long, rows of the status are out of scope, or rows have no failure type).
    pub fn written(&self, target: &Target) -> Result<Names> {
        for (argument, value) in
            [("recipe_id", self.recipe_id), ("failure_type", self.failure_type), ("status", self.status)]
        {
            if value.is_some_and(|value| value.len() > LONGEST) {
                let message = format!("argument \"{argument}\" has more than {LONGEST} bytes");
                let hint = format!("SELECT * FROM backlog_cleanup_status({})", quote_literal(&target.name));
                return Err(error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, hint));
            }
        }
        if self.failure_type.is_some() {
            target.has_failure_types()?;
            target.finds_failure_types(|| target.set("fingerprint", "false"))?;
        }
        let failure_type = self.failure_type.filter(|_| !target.has_failure_type_in_text());
        failure_type.map_or(Ok(()), |failure_type| target.accepts(&target.failure_type, failure_type))?;
        let recipe_id = self.recipe_id.map(|recipe_id| written_recipe(target, recipe_id)).transpose()?;
        let status = self.status.map(|status| target.written_status(status)).transpose()?;
        Ok(Names { recipe_id, failure_type: self.failure_type.map(str::to_owned), status })
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

fn written_recipe(target: &Target, recipe_id: &str) -> Result<String> {
    // A cast of somebody's may show what cannot be read again.
    let is_shown =
        target.recipe_columns.is_none() && target.recipe_column.is_some() && target.recipe.has_text_as_written();
    if is_shown {
        return target.accepts(&target.recipe, recipe_id).map(|()| recipe_id.to_owned());
    }
    match briefly(|| target.written_recipe(recipe_id)) {
        Ok(written) => Ok(written),
        // A part has no equality: reports have the id as rows show it.
        Err(failure)
            if sqlstate(&failure) == PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH && target.recipe_columns.is_some() =>
        {
            Ok(recipe_id.to_owned())
        }
        Err(failure) => raise_again(failure),
    }
}
