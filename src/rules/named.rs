use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::postgres::error::{Result, error};
use crate::postgres::now::rows_now;
use crate::postgres::subtransaction::{briefly, raise_again, reported, sqlstate};
use crate::rules::policy::{Names, is_unreadable, obeyed_first};
use crate::target::expression::writes_expressions;
use crate::target::meaning::Change;
use crate::target::row::row_of;
use crate::target::steady::glance;
use crate::target::{Target, TargetRow};

/// A policy that names something, as it is stored.
pub struct Named {
    pub names: Names,
    pub is_hold: bool,
}

/// Why no row is under a policy.
pub enum Doubt {
    /// No row can have what it names.
    Unreadable(String),
    /// Rows have it otherwise.
    Otherwise(Names),
}

impl Named {
    /// Of a target, as `obeyed_first` orders them. Until ALTER EXTENSION UPDATE the table has policies in it that no run has obeyed so far.
    pub fn all(target: &Target) -> Result<Vec<Named>> {
        const NAMED: &str = concat!(
            "
            SELECT recipe_id, failure_type, to_jsonb(policy) ->> 'status', enabled FROM backlog_cleanup.policy
            WHERE target = $1 AND coalesce(recipe_id, failure_type, to_jsonb(policy) ->> 'status') IS NOT NULL",
            obeyed_first!()
        );
        if !extension::is_updated()? {
            return Ok(Vec::new());
        }
        extension::as_owner(|| {
            rows_now(NAMED, &[target.name.as_str().into()], |row| {
                let names = Names { recipe_id: row.get(1)?, failure_type: row.get(2)?, status: row.get(3)? };
                Ok(Named { names, is_hold: row.get::<bool>(4)? == Some(false) })
            })
        })
    }

    /// What the policy of a target for the rows with these names is stored as: as they are, if there is none. Errors: 42710 (there are
    /// several).
    pub fn stored(target: &Target, names: Names) -> Result<Names> {
        let of_rows = names.clone().of_rows(target);
        let all = Named::all(target)?.into_iter().map(|policy| policy.names);
        let mut stored = all.filter(|stored| stored.clone().of_rows(target) == of_rows);
        match (stored.next(), stored.next()) {
            (Some(obeyed), Some(other)) => Err(error(
                PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                format!(
                    "target \"{}\" has two policies for these rows: {}",
                    target.name,
                    other.beside(&obeyed, target)
                ),
                other.drop(target),
            )),
            (stored, _) => Ok(stored.unwrap_or(names)),
        }
    }

    /// `None` if rows can be under it.
    pub fn doubt(&self, target: &Target) -> Result<Option<Doubt>> {
        let Names { recipe_id, failure_type, status } = &self.names;
        let written = || Names::written(target, recipe_id.as_deref(), failure_type.as_deref(), status.as_deref());
        match briefly(written) {
            Ok(written) if written == self.names => Ok(None),
            // An earlier version or a dump may have let in `07`, which is read as 7.
            Ok(written) if written == self.names.clone().of_rows(target) => Ok(None),
            Ok(written) => Ok(Some(Doubt::Otherwise(written))),
            Err(failure) if is_unreadable(sqlstate(&failure)) => {
                let reported = reported(&failure);
                let lines = reported.detail().unwrap_or(reported.message()).lines();
                Ok(Some(Doubt::Unreadable(lines.collect::<Vec<_>>().join("; "))))
            }
            Err(failure) => raise_again(failure),
        }
    }
}

/// Checks that the policies of a target that a statement has written are still for the rows that they are for: `before` is the row
/// before it as JSON. What the statement has not touched is left alone. All of them are one error. Errors: 2BP01, those of
/// `Target::load`.
#[pg_extern(sql = false)]
fn check_policies_of_target(target: Option<&str>, before: Option<&str>) -> Result<()> {
    if writes_expressions() {
        return Ok(());
    }
    glance(target, |target| {
        let before = serde_json::from_str(before.unwrap_or_default()).unwrap_or_default();
        let lost = lost(target, &row_of(&target.name, before)?)?;
        if lost.is_empty() {
            return Ok(());
        }
        let policies = if lost.len() == 1 { "policy" } else { "policies" };
        let detail: Vec<String> = lost.iter().map(|(_, lost)| lost.clone()).collect();
        Err(error(
            PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
            format!("{} {policies} of target \"{}\" would not be for the same rows any more", lost.len(), target.name),
            look_at_policies(&target.name),
        )
        .set_detail(detail.join("\n")))
    })
}

pub fn look_at_policies(target: &str) -> String {
    format!(
        "SELECT * FROM backlog_cleanup.policy WHERE target = {}; \
         -- drop them, change the target, and set them as rows have it then, in one transaction",
        quote_literal(target)
    )
}

/// The policies of a target that would not be for the rows that they were for in its row before: the column of `target` that has changed,
/// and what is lost.
pub fn lost(target: &Target, before: &TargetRow) -> Result<Vec<(&'static str, String)>> {
    let changes = target.changes_since(before)?;
    let recipe = if target.recipe_columns.is_some() { "recipe_columns" } else { "recipe_column" };
    let status = if target.status_column == before.status_column { "statuses" } else { "status_column" };
    let mut lost = Vec::new();
    for policy in Named::all(target)? {
        let Names { recipe_id, failure_type, status: of_status } = &policy.names;
        let names = [
            (recipe, target.nouns.group_word.as_str(), recipe_id, changes.recipe),
            ("failure_type_column", "failure type", failure_type, changes.failure_type),
            (status, "status", of_status, changes.status),
        ];
        let touched = names.iter().filter(|(.., name, change)| name.is_some() && *change > Change::None);
        let Some((column, what, _, change)) = touched.max_by_key(|(.., change)| *change) else { continue };
        let reason = match policy.doubt(target)? {
            Some(Doubt::Unreadable(reason)) => reason,
            Some(Doubt::Otherwise(written)) => format!("rows have {}", written.said(target)),
            None if *change == Change::Meaning => format!("a {what} would be something else"),
            None => continue,
        };
        lost.push((*column, format!("policy for {}: {reason}", policy.names.said(target))));
    }
    Ok(lost)
}
