use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::postgres::error::{Result, error, spi};
use crate::postgres::now::rows_now;
use crate::postgres::read::read_one;
use crate::rules::named::Named;
use crate::rules::policy::{Cutoff, Names, Policy};
use crate::target::Target;
use crate::target::leaf::leaves;
use crate::target::steady::glance;

/// A policy as people write it; what is `None` stays as it is, or has its default.
pub struct Written {
    pub names: Names,
    pub max_age: Option<Interval>,
    pub keep: Option<i32>,
    pub enabled: Option<bool>,
    pub max_keep_age: Option<Interval>,
    pub no_max_keep_age: bool,
}

impl Written {
    /// The policy that `backlog_cleanup_set_policy` would make of it. Errors: 22023, those of `Named::stored`.
    pub fn policy(self, target: &Target) -> Result<Policy> {
        if self.no_max_keep_age && self.max_keep_age.is_some() {
            return Err(error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "a policy with no_max_keep_age has no max_keep_age".into(),
                format!(
                    "SELECT * FROM backlog_cleanup_simulate(no_max_keep_age => true, target => {})",
                    quote_literal(&target.name)
                ),
            ));
        }
        const POLICY: &str = r#"
            SELECT keep, enabled,
                   to_char(least(utc - max_age, utc), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   to_char(utc - max_keep_age, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            FROM timezone('UTC', now()) AS utc,
                 (SELECT coalesce($5, max(max_age), $9), coalesce($6, max(keep), $10),
                         coalesce($7, bool_and(enabled), $11), coalesce($8, CASE WHEN NOT $12 THEN max(max_keep_age) END)
                  FROM backlog_cleanup.policy
                  WHERE (target, recipe_id, failure_type, status) IS NOT DISTINCT FROM ($1, $2, $3, $4))
                 AS written (max_age, keep, enabled, max_keep_age),
                 LATERAL backlog_cleanup.check_limits($1, $2, $3, $4, max_age, keep, max_keep_age)"#;
        let names = Named::stored(target, self.names)?;
        let name = |name: &Option<String>| name.clone().into();
        let (max_age, keep, enabled) = defaults()?;
        let arguments = [
            target.name.as_str().into(),
            name(&names.recipe_id),
            name(&names.failure_type),
            name(&names.status),
            self.max_age.into(),
            self.keep.into(),
            self.enabled.into(),
            self.max_keep_age.into(),
            max_age.into(),
            keep.into(),
            enabled.into(),
            self.no_max_keep_age.into(),
        ];
        let found = extension::as_owner(|| {
            rows_now(POLICY, &arguments, |row| {
                let is_enabled = row.get::<bool>(2)?.unwrap_or_default();
                let cutoff = row.get(3)?.filter(|_| is_enabled).unwrap_or_else(|| Cutoff::NEVER.into());
                let keep_cutoff = row.get(4)?.filter(|_| is_enabled).map(Cutoff);
                Ok((row.get::<i32>(1)?.unwrap_or_default(), is_enabled, Cutoff(cutoff), keep_cutoff))
            })
        })?;
        let (keep, is_enabled, cutoff, keep_cutoff) =
            found.into_iter().next().unwrap_or((0, false, Cutoff(Cutoff::NEVER.into()), None));
        Ok(Policy { names: names.of_rows(target), cutoff, keep, keep_cutoff, is_enabled })
    }
}

/// The defaults of the table for `max_age`, `keep` and `enabled`.
fn defaults() -> Result<(Option<Interval>, Option<i32>, Option<bool>)> {
    const DEFAULTS: &str = "
        SELECT 'SELECT ' || string_agg(pg_get_expr(d.adbin, d.adrelid), ', ' ORDER BY named.place)
        FROM unnest(ARRAY['max_age', 'keep', 'enabled']) WITH ORDINALITY AS named (name, place)
        JOIN pg_attribute a ON a.attrelid = 'backlog_cleanup.policy'::regclass AND a.attname = named.name
        JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum";
    extension::as_owner(|| {
        let defaults = read_one::<String>(DEFAULTS, &[])?.unwrap_or_default();
        Spi::get_three::<Interval, i32, bool>(&defaults).map_err(spi)
    })
}

/// What a policy names, as it is stored, or else as rows of the target have it: recipe, failure type, status. Errors: those of
/// `Names::written`, `Named::stored` and `Target::load`.
#[pg_extern(sql = false)]
fn written_names(
    target: Option<&str>,
    recipe_id: Option<&str>,
    failure_type: Option<&str>,
    status: Option<&str>,
) -> Result<Vec<Option<String>>> {
    let names =
        glance(target, |target| Named::stored(target, Names::written(target, recipe_id, failure_type, status)?))?;
    Ok(vec![names.recipe_id, names.failure_type, names.status])
}

/// Warns if the target has no row in scope now that has what a policy names. Errors: the same.
#[pg_extern(sql = false)]
fn tell_unmatched(
    target: Option<&str>,
    recipe_id: Option<&str>,
    failure_type: Option<&str>,
    status: Option<&str>,
) -> Result<()> {
    glance(target, |target| warn_if_unmatched(target, &Names::written(target, recipe_id, failure_type, status)?))
}

/// Says that a policy takes rows out of a hold, if it does. Both as a recipe, a failure type, and a status.
#[pg_extern(sql = false)]
fn lifted(group_word: &str, policy: Vec<Option<String>>, hold: Vec<Option<String>>) -> Option<String> {
    let [policy, hold] = [policy, hold].map(|names| {
        let mut names = names.into_iter();
        let mut name = || names.next().flatten();
        Names { recipe_id: name(), failure_type: name(), status: name() }
    });
    policy.lift(&hold, group_word)
}

/// Warns if the target has no row in scope now that has these names.
pub fn warn_if_unmatched(target: &Target, names: &Names) -> Result<()> {
    let of_rows = names.clone().of_rows(target);
    let condition = format!("{} AND {}", target.is_failed(), of_rows.are_of_row(target));
    for leaf in leaves(target)? {
        if leaf.has_row(target, &condition)? {
            return Ok(());
        }
    }
    let is_none = names.failure_type.as_deref() == Some("(none)");
    let why = if is_none { ": rows without a failure type have no name" } else { "" };
    let (name, row_word) = (&target.name, &target.nouns.row_word);
    let message = format!("target \"{name}\" has no {row_word} now that this policy is for{why}");
    let warning = ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "backlog_cleanup");
    let hint = format!("SELECT * FROM backlog_cleanup_status({})", quote_literal(&target.name));
    warning.set_hint(hint).report(PgLogLevel::WARNING);
    Ok(())
}
