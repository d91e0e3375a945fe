use backlog_cleanup_report::policy_name;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::postgres::error::{Result, error};
use crate::postgres::now::rows_now;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::subtransaction::{briefly, raise_again, reported, sqlstate};
use crate::target::Target;
use crate::target::recipes::bounded_once;

/// The order of policies by which, of those for the same rows, the first one is obeyed: a hold, or else the one that keeps more.
macro_rules! obeyed_first {
    () => {
        " ORDER BY enabled, max_age DESC, keep DESC, recipe_id COLLATE \"C\", failure_type COLLATE \"C\""
    };
}
pub(crate) use obeyed_first;

/// What a policy is for: a recipe, a failure type, a status, as texts. `None` is any.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Names {
    pub recipe_id: Option<String>,
    pub failure_type: Option<String>,
    pub status: Option<String>,
}

/// A policy as it is when a run starts.
#[derive(Clone)]
pub struct Policy {
    pub names: Names,
    pub cutoff: Cutoff,
    /// How many of the newest expired rows of a recipe stay.
    pub keep: i32,
    /// Of these, rows before this go, too.
    pub keep_cutoff: Option<Cutoff>,
    pub is_enabled: bool,
}

/// Rows that finished before this instant are old: a `timestamptz` in ISO 8601, UTC, or `-infinity` if none are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cutoff(pub String);

impl Cutoff {
    pub const NEVER: &str = "-infinity";

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The instant; `None` if no row is old.
    pub fn instant(&self) -> Option<&str> {
        (self.0 != Cutoff::NEVER).then_some(&self.0)
    }
}

impl Names {
    /// What they are, for people.
    pub fn said(&self, target: &Target) -> String {
        self.said_of(&target.nouns.group_word)
    }

    fn said_of(&self, group_word: &str) -> String {
        let Names { recipe_id, failure_type, status } = self;
        policy_name(group_word, recipe_id.as_deref(), failure_type.as_deref(), status.as_deref())
    }

    /// Of a target, as its rows have them. Errors: 22P02 and 22023 (no row can have it, or a status is out of scope).
    pub fn written(
        target: &Target,
        recipe_id: Option<&str>,
        failure_type: Option<&str>,
        status: Option<&str>,
    ) -> Result<Names> {
        let read = |sql: String| reading_as_owner_of(&target.table, || read_one::<String>(&sql, &[]));
        let written_recipe = |recipe_id: &str| target.written_recipe(recipe_id);
        let written_failure_type = |failure_type: &str| {
            target.has_failure_types()?;
            target.finds_failure_types(|| target.set("fingerprint", "false"))?;
            if !target.has_failure_type_in_text() {
                target.accepts(&target.failure_type, failure_type)?;
            }
            let written = read(format!("SELECT {}", target.written_failure_type(failure_type)))?;
            // A cast of somebody's may show NULL, which would be any.
            written.ok_or_else(|| {
                let message = format!("failure type \"{failure_type}\" is shown as NULL by its type");
                let hint = format!("SELECT * FROM backlog_cleanup_failures({})", quote_literal(&target.name));
                error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, hint)
            })
        };
        let mut wrong = Vec::new();
        let several = [recipe_id, failure_type, status].into_iter().flatten().count() > 1;
        let mut written = |name: Option<&str>, written: &dyn Fn(&str) -> Result<String>| {
            let Some(name) = name else { return Ok(None) };
            if !several {
                return written(name).map(Some);
            }
            match briefly(|| written(name)) {
                Ok(written) => Ok(Some(written)),
                Err(failure) if is_unreadable(sqlstate(&failure)) => {
                    wrong.push(failure);
                    Ok(None)
                }
                Err(failure) => raise_again(failure),
            }
        };
        let names = Names {
            recipe_id: written(recipe_id, &written_recipe)?,
            failure_type: written(failure_type, &written_failure_type)?,
            status: written(status, &|status| target.written_status(status))?,
        };
        if wrong.is_empty() {
            return Ok(names);
        }
        let wrong: Vec<_> = wrong.iter().map(reported).collect();
        let (code, hint) = (wrong[0].sql_error_code(), wrong[0].hint().unwrap_or_default().to_owned());
        if let [only] = wrong[..] {
            return Err(error(code, only.message().to_owned(), hint));
        }
        let lines: Vec<&str> = wrong.iter().map(|wrong| wrong.message()).collect();
        let message = format!("a policy of target \"{}\" has {} mistakes", target.name, wrong.len());
        Err(error(code, message, hint).set_detail(lines.join("\n")))
    }

    /// The same with the recipe as rows are told apart. An earlier version or a dump may have let in `07`.
    pub fn of_rows(mut self, target: &Target) -> Names {
        self.recipe_id = self.recipe_id.map(|recipe_id| match recipe_id.parse::<i64>() {
            Ok(number) if target.recipe.is_integer() => number.to_string(),
            _ => bounded_once(recipe_id),
        });
        self
    }

    /// The arguments of `backlog_cleanup_set_policy` and `backlog_cleanup_drop_policy` that say them, each with a comma behind it.
    pub fn arguments(&self) -> String {
        let names = [("recipe_id", &self.recipe_id), ("failure_type", &self.failure_type), ("status", &self.status)];
        let named = names.into_iter().filter_map(|(argument, name)| Some((argument, name.as_ref()?)));
        named.map(|(argument, name)| format!("{argument} => {}, ", quote_literal(name))).collect()
    }

    /// The statement that drops the policy that is stored with these names.
    pub fn drop(&self, target: &Target) -> String {
        format!("SELECT backlog_cleanup_drop_policy({}target => {})", self.arguments(), quote_literal(&target.name))
    }

    /// That a policy with these names is not obeyed, for another one with the same rows.
    pub fn beside(&self, obeyed: &Names, target: &Target) -> String {
        format!("runs obey the one for {}, not the one for {}", obeyed.said(target), self.said(target))
    }

    /// Whether it is for every row.
    pub fn are_none(&self) -> bool {
        *self == Names::default()
    }

    /// Says that the policy with these names takes rows out of a hold, if it does. `group_word` is the target's.
    pub fn lift(&self, hold: &Names, group_word: &str) -> Option<String> {
        let is_lifted = !hold.are_none() && self.come_before(hold) && self.may_meet(hold);
        is_lifted.then(|| {
            format!(
                "rows that have both are under the policy for {}, and the hold for {} does not keep them",
                self.said_of(group_word),
                hold.said_of(group_word)
            )
        })
    }

    /// Whether a row that has both these names and others is under the policy for these: the one that names its recipe comes first, among
    /// those the one that names its failure type, then its status.
    fn come_before(&self, other: &Names) -> bool {
        let named = |names: &Names| [names.recipe_id.is_some(), names.failure_type.is_some(), names.status.is_some()];
        named(self) > named(other)
    }

    /// Whether a row can have both these names and others.
    pub fn may_meet(&self, other: &Names) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        !differ(&self.recipe_id, &other.recipe_id)
            && !differ(&self.failure_type, &other.failure_type)
            && !differ(&self.status, &other.status)
    }

    /// The condition on a row `g` that it has these names, which are `of_rows`: what `Policies::of_row` finds out of the row's texts.
    /// NULL for a row without them.
    pub fn are_of_row(&self, target: &Target) -> String {
        let Names { recipe_id, failure_type, status } = self;
        let recipe_id = recipe_id.as_ref().map(|recipe_id| target.has_text_of_recipe(recipe_id));
        let failure_type =
            failure_type.as_ref().map(|failure_type| target.has_failure_type(&quote_literal(failure_type)));
        let status = status.as_ref().map(|status| target.has_status(status));
        let conditions: Vec<String> = recipe_id.into_iter().chain(failure_type).chain(status).collect();
        if conditions.is_empty() { "true".into() } else { conditions.join(" AND ") }
    }
}

/// Whether a failure says that no row can have what a policy names.
pub fn is_unreadable(code: PgSqlErrorCode) -> bool {
    matches!(
        code,
        PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION
            | PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE
            | PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH
    )
}

impl Policy {
    /// Whether it is a hold: nothing under it goes.
    pub fn is_hold(&self) -> bool {
        !self.is_enabled && !self.names.are_none()
    }

    /// The policies of a target, as `obeyed_first` orders them. Cutoffs are computed in UTC, and are never in the future.
    pub fn all(target: &Target) -> Result<Vec<Policy>> {
        const POLICIES: &str = concat!(
            r#"
            SELECT recipe_id, failure_type, to_jsonb(policy) ->> 'status', keep, enabled,
                   to_char(least(utc - max_age, utc), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   to_char(utc - (to_jsonb(policy) ->> 'max_keep_age')::interval, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            FROM backlog_cleanup.policy, timezone('UTC', now()) AS utc
            WHERE target = $1 AND ($2 OR recipe_id IS NULL AND failure_type IS NULL)"#,
            obeyed_first!()
        );
        // Until ALTER EXTENSION UPDATE the table has not all columns, and policies in it that no run has obeyed so far.
        let is_updated = extension::is_updated()?;
        let policies = extension::as_owner(|| {
            rows_now(POLICIES, &[target.name.as_str().into(), is_updated.into()], |row| {
                let is_enabled = row.get::<bool>(5)?.unwrap_or_default();
                let cutoff = row.get(6)?.filter(|_| is_enabled).unwrap_or_else(|| Cutoff::NEVER.into());
                Ok(Policy {
                    names: Names { recipe_id: row.get(1)?, failure_type: row.get(2)?, status: row.get(3)? },
                    cutoff: Cutoff(cutoff),
                    keep: row.get(4)?.unwrap_or_default(),
                    keep_cutoff: row.get(7)?.filter(|_| is_enabled).map(Cutoff),
                    is_enabled,
                })
            })
        })?;
        Ok(policies.into_iter().map(|policy| Policy { names: policy.names.of_rows(target), ..policy }).collect())
    }

    /// What stands in for the default policy of a target that has none: nothing goes under it.
    pub fn absent() -> Policy {
        Policy {
            names: Names::default(),
            cutoff: Cutoff(Cutoff::NEVER.into()),
            keep: 0,
            keep_cutoff: None,
            is_enabled: false,
        }
    }
}
