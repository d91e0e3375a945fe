use std::collections::HashMap;
use std::rc::Rc;

use backlog_cleanup_report::Mode;
use pgrx::datum::Interval;
use pgrx::prelude::*;

use crate::postgres::error::Result;
use crate::rank::one_pass::rank;
use crate::rules::Rules;
use crate::rules::matching::Policies;
use crate::rules::policy::Names;
use crate::rules::selection::Selection;
use crate::rules::written::{Written, warn_if_unmatched};
use crate::target::Target;
use crate::target::leaf::Leaf;
use crate::target::recipes::RecipeNames;
use crate::target::steady::glance_leaves;

/// The rows in scope of a recipe under a policy: removable now, kept now, removable then, kept then.
type Counts = [i64; 4];

/// Returns what a regular run would remove and keep now, and what it would if `backlog_cleanup_set_policy` had been called with these
/// arguments: per policy and recipe. Changes nothing: works on a standby. Errors: those of `Written::policy`, `Names::written`,
/// `Target::load`.
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[allow(clippy::too_many_arguments)] // those of backlog_cleanup_set_policy
#[pg_extern(stable)]
fn backlog_cleanup_simulate(
    recipe_id: default!(Option<&str>, "NULL"),
    failure_type: default!(Option<&str>, "NULL"),
    status: default!(Option<&str>, "NULL"),
    max_age: default!(Option<Interval>, "NULL"),
    keep: default!(Option<i32>, "NULL"),
    enabled: default!(Option<bool>, "NULL"),
    #[allow(unused_variables)] note: default!(Option<&str>, "NULL"),
    target: default!(Option<&str>, "'generations'"),
    max_keep_age: default!(Option<Interval>, "NULL"),
    no_max_keep_age: default!(Option<bool>, "false"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(policy, String),
            name!(recipe, Option<String>),
            name!(recipe_name, String),
            name!(removable_now, i64),
            name!(kept_now, i64),
            name!(removable_then, i64),
            name!(kept_then, i64),
        ),
    >,
> {
    let found = glance_leaves(target, |target, leaves| {
        let names = Names::written(target, recipe_id, failure_type, status)?;
        let now = Policies::of(target, Mode::Regular)?;
        warn_if_unmatched(target, &names)?;
        let no_max_keep_age = no_max_keep_age == Some(true);
        let written = Written { names, max_age, keep, enabled, max_keep_age, no_max_keep_age };
        let then = now.with(written.policy(target)?);
        let mut counts: HashMap<(String, Option<String>), Counts> = HashMap::new();
        for (policies, when) in [(now, 0), (then, 2)] {
            for (group, [removable, kept]) in counted(target, leaves, policies)? {
                let counts = counts.entry(group).or_default();
                counts[when] += removable;
                counts[when + 1] += kept;
            }
        }
        let recipe_names = RecipeNames::of(target, counts.keys().map(|(_, recipe_id)| recipe_id.as_deref()))?;
        let rows =
            counts.into_iter().map(|((policy, recipe_id), [removable_now, kept_now, removable_then, kept_then])| {
                let name = recipe_names.name(recipe_id.as_deref());
                (policy, recipe_id, name, removable_now, kept_now, removable_then, kept_then)
            });
        Ok(rows.collect::<Vec<_>>())
    })?;
    let mut rows = found;
    rows.sort_by(|a, b| (b.5, b.3, &a.0, &a.1).cmp(&(a.5, a.3, &b.0, &b.1)));
    Ok(TableIterator::new(rows))
}

/// Counts the rows that a regular run would remove and keep under policies, per policy and recipe.
#[allow(clippy::type_complexity)]
fn counted(target: &Target, leaves: &[Leaf], policies: Policies) -> Result<Vec<((String, Option<String>), [i64; 2])>> {
    let policies = Rc::new(policies);
    let selection = Selection::default();
    let rules = Rules { target, selection, mode: Mode::Regular, policies: policies.clone(), include_held: false };
    let groups = rank(&rules, leaves)?.tally.list.into_iter();
    let of_group = groups.map(|group| {
        let policy = policies.list[group.policy].names.said(target);
        ((policy, group.recipe_id), [group.removed, group.failed - group.removed])
    });
    Ok(of_group.collect())
}
