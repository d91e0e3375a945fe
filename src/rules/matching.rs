use std::collections::{HashMap, HashSet};

use backlog_cleanup_report::Mode;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::error::{Result, error};
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::stream::stream;
use crate::rules::policy::{Cutoff, Policy};
use crate::spread::Spread;
use crate::target::Target;

/// The policies of a run, and which one a row has.
pub struct Policies {
    /// Those first that name a recipe, then those that name a failure type, then those that name a status. The default policy is
    /// the last one.
    pub list: Vec<Policy>,
    /// The places in the list, by recipe, failure type and status.
    by_names: Choice<Choice<Choice<usize>>>,
    pub name_failure_types: bool,
    name_statuses: bool,
}

/// What is for a name, and what is for any.
struct Choice<T> {
    named: HashMap<String, T, Spread>,
    any: Option<T>,
}

impl<T> Default for Choice<T> {
    fn default() -> Choice<T> {
        Choice { named: HashMap::default(), any: None }
    }
}

impl<T: Default> Choice<T> {
    fn of(&mut self, name: Option<&String>) -> &mut T {
        match name {
            Some(name) => self.named.entry(name.clone()).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }

    /// What is for a row of this name, the most specific first.
    fn all(&self, name: Option<&str>) -> impl Iterator<Item = &T> {
        name.and_then(|name| self.named.get(name)).into_iter().chain(&self.any)
    }
}

impl Policies {
    /// Those that a run of a target obeys. Errors: 42704 (there is no default policy, which a regular run needs), those of
    /// `finds_failure_types`.
    pub fn of(target: &Target, mode: Mode) -> Result<Policies> {
        let list = Policy::all(target)?;
        if mode == Mode::Regular && !list.iter().any(|policy| policy.names.are_none()) {
            return Err(error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("target \"{}\" has no default policy", target.name),
                format!("INSERT INTO backlog_cleanup.policy (target) VALUES ({})", quote_literal(&target.name)),
            ));
        }
        if let Some(policy) = list.iter().find(|policy| policy.names.failure_type.is_some()) {
            target.finds_failure_types(|| policy.names.drop(target))?;
        }
        Ok(Policies::new(list))
    }

    /// Of policies with the same names the first one is obeyed: `07` and `7` are one number.
    pub fn new(mut list: Vec<Policy>) -> Policies {
        let mut seen = HashSet::new();
        list.retain(|policy| seen.insert(policy.names.clone()));
        if !list.iter().any(|policy| policy.names.are_none()) {
            list.push(Policy::absent());
        }
        list.sort_by(|a, b| {
            let names = |policy: &Policy| {
                let names = &policy.names;
                (names.recipe_id.is_none(), names.failure_type.is_none(), names.status.is_none())
            };
            names(a).cmp(&names(b))
        });
        let mut by_names = Choice::<Choice<Choice<usize>>>::default();
        for (place, policy) in list.iter().enumerate() {
            let names = &policy.names;
            *by_names.of(names.recipe_id.as_ref()).of(names.failure_type.as_ref()).of(names.status.as_ref()) = place;
        }
        let name_failure_types = list.iter().any(|policy| policy.names.failure_type.is_some());
        let name_statuses = list.iter().any(|policy| policy.names.status.is_some());
        Policies { list, by_names, name_failure_types, name_statuses }
    }

    /// The place of the policy that a row has.
    pub fn of_row(&self, recipe_id: Option<&str>, failure_type: Option<&str>, status: Option<&str>) -> usize {
        let found = self
            .by_names
            .all(recipe_id)
            .flat_map(|by_type| by_type.all(failure_type))
            .flat_map(|by_status| by_status.all(status))
            .next();
        found.copied().unwrap_or(self.list.len() - 1)
    }

    /// The same policies but for one, which comes for another with its names, or is new.
    pub fn with(&self, policy: Policy) -> Policies {
        let others = self.list.iter().filter(|other| other.names != policy.names).cloned();
        Policies::new(others.chain([policy.clone()]).collect())
    }

    /// Whether a row's recipe says which policy it has.
    pub fn are_by_recipe(&self) -> bool {
        !self.name_failure_types && !self.name_statuses
    }

    pub fn default_policy(&self) -> &Policy {
        &self.list[self.list.len() - 1]
    }

    /// The latest of the cutoffs: a row that is not before it is old under no policy.
    pub fn latest_cutoff(&self) -> &Cutoff {
        let cutoffs = self.list.iter().map(|policy| &policy.cutoff);
        cutoffs.max().unwrap_or(&self.default_policy().cutoff)
    }

    /// The condition on a row `g` that it has this policy; never NULL. If the row's recipe is known, `recipe_id` limits what is
    /// asked.
    pub fn is_under(&self, place: usize, target: &Target, recipe_id: Option<Option<&str>>) -> String {
        let (before, names) = (&self.list[..place], &self.list[place].names);
        let may_be_its = |other: &&Policy| {
            let recipe = other.names.recipe_id.as_deref();
            names.may_meet(&other.names) && recipe_id.is_none_or(|of_row| recipe.is_none() || recipe == of_row)
        };
        let others = before.iter().filter(may_be_its).map(|other| other.names.are_of_row(target));
        let none_before: String = others.map(|other| format!(" AND ({other}) IS NOT TRUE")).collect();
        format!("({}) IS TRUE{none_before}", names.are_of_row(target))
    }

    /// The condition on a row `g` that it is held, never NULL; `None` if there is no hold.
    pub fn is_held(&self, target: &Target) -> Option<String> {
        let holds = self.list.iter().enumerate().filter(|(_, policy)| policy.is_hold());
        let held: Vec<_> = holds.map(|(place, _)| format!("({})", self.is_under(place, target, None))).collect();
        (!held.is_empty()).then(|| held.join(" OR "))
    }

    /// What says which recipe, policy and status a row `g` in scope has: the recipe as `key`, the failure type as text, NULL where no
    /// policy names any, and the status as `Target::place_of_status`.
    pub fn group_columns(&self, target: &Target, key: &str) -> String {
        let failure_type = match self.name_failure_types {
            true => target.failure_type_of_row(),
            false => "NULL::pg_catalog.text".into(),
        };
        format!("{key}, {failure_type}, {}", target.place_of_status())
    }

    /// When rows of each policy are old, in the same order.
    pub fn ages(&self, target: &Target) -> Result<Vec<Age>> {
        let cutoffs = self.list.iter().flat_map(|policy| [Some(&policy.cutoff), policy.keep_cutoff.as_ref()]);
        let cutoffs: Vec<Option<&Cutoff>> = cutoffs.collect();
        let mut times: HashMap<&Cutoff, i64> = HashMap::new();
        let different: Vec<&Cutoff> = {
            let mut all: Vec<&Cutoff> = cutoffs.iter().flatten().copied().collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let values = different.iter().map(|cutoff| format!("({})", target.as_failed_at(cutoff.as_str())));
        let values = format!("VALUES {}", values.collect::<Vec<_>>().join(", "));
        reading_as_owner_of(&target.table, || {
            let mut different = different.iter();
            stream(&values, |row| {
                let cutoff = different.next().zip(row.number(0));
                times.extend(cutoff.map(|(cutoff, at)| (*cutoff, at)));
            })
        })?;
        let at = |cutoff: Option<&Cutoff>| cutoff.and_then(|cutoff| times.get(cutoff)).copied();
        let ages = cutoffs
            .chunks_exact(2)
            .map(|pair| Age { cutoff: at(pair[0]).unwrap_or(i64::MIN), keep_cutoff: at(pair[1]).unwrap_or(i64::MIN) });
        Ok(ages.collect())
    }
}

/// When rows are old, as the failed-at column has it: microseconds since 2000.
#[derive(Clone, Copy, Default)]
pub struct Age {
    /// Rows before it are expired.
    pub cutoff: i64,
    /// Rows before it go even if they are among the newest.
    pub keep_cutoff: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::policy::Names;

    fn policy(recipe_id: Option<&str>, failure_type: Option<&str>, status: Option<&str>) -> Policy {
        let own = |name: Option<&str>| name.map(str::to_owned);
        Policy {
            names: Names { recipe_id: own(recipe_id), failure_type: own(failure_type), status: own(status) },
            cutoff: Cutoff(Cutoff::NEVER.into()),
            keep: 10,
            keep_cutoff: None,
            is_enabled: true,
        }
    }

    #[test]
    fn a_row_has_the_policy_that_names_its_recipe_then_its_failure_type_then_its_status() {
        let (a, b, none) = (Some("a"), Some("b"), None);
        let all = [
            (none, none, none),
            (none, none, a),
            (none, a, none),
            (none, a, a),
            (a, none, none),
            (a, none, a),
            (a, a, none),
            (a, a, a),
        ];
        for present in 0_u32..128 {
            // Any of them, and always the default policy.
            let there: Vec<_> = (0..8).filter(|place| present << 1 >> place & 1 == 1 || *place == 0).collect();
            let policies =
                Policies::new(there.iter().map(|place| policy(all[*place].0, all[*place].1, all[*place].2)).collect());
            for recipe in [none, a, b] {
                for failure_type in [none, a, b] {
                    for status in [a, b] {
                        let is_for = |name: Option<&str>, of_row: Option<&str>| name.is_none() || name == of_row;
                        let matching = there.iter().filter(|place| {
                            let (r, f, s) = all[**place];
                            is_for(r, recipe) && is_for(f, failure_type) && is_for(s, status)
                        });
                        // They are listed in the order of how much they name.
                        let wanted = matching.max().map(|place| all[*place]);
                        let names = &policies.list[policies.of_row(recipe, failure_type, status)].names;
                        let found =
                            (names.recipe_id.as_deref(), names.failure_type.as_deref(), names.status.as_deref());
                        assert_eq!(Some(found), wanted, "{present}: {recipe:?} {failure_type:?} {status:?}");
                    }
                }
            }
        }
    }
}
