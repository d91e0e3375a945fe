use pgrx::spi::quote_literal;

use crate::postgres::datum::instant_as_text;
use crate::rank::position::Position;
use crate::rank::tally::RecipeCount;
use crate::rules::Rules;
use crate::target::Target;
use crate::target::leaf::Leaf;

/// Rows of a leaf that has no usable positions, as a statement finds them. It has nothing but columns and constants, so that another server
/// can run it; but what finds the rows of a shortened id runs here.
#[derive(Clone)]
pub struct Sought {
    /// What the statement has beside the leaf; empty for nothing.
    beside: String,
    /// The condition on a row `g`.
    condition: String,
}

impl Sought {
    /// All rows that a run may remove.
    pub fn all(rules: &Rules) -> Sought {
        Sought { beside: String::new(), condition: rules.condition() }
    }

    /// Those of a recipe under its policy; in a regular run those before its cutoff.
    pub fn of_one(rules: &Rules, recipe: &RecipeCount) -> Sought {
        let target = rules.target;
        let is_its = match &recipe.recipe_id {
            None => format!("{} IS NULL", target.recipe.of_row()),
            Some(recipe_id) => target.is_of_recipe(recipe_id),
        };
        let kind = kind_of(rules, recipe, Some(recipe.recipe_id.as_deref()));
        let mut condition = format!("{is_its}{kind} AND {}", rules.condition());
        if let Some(cutoff) = recipe.cutoff {
            let at = at(target, cutoff);
            let is_older = target.id.is_before(&id_of(target, cutoff));
            condition += &format!(
                " AND ({column} OPERATOR(pg_catalog.<) {at} OR {column} OPERATOR(pg_catalog.=) {at} AND {is_older})",
                column = target.failed_at.of_row(),
            );
        }
        Sought { beside: String::new(), condition }
    }

    /// The same of recipes that `can_be_among_several`: a list has the recipe, its kind, and its cutoff.
    pub fn of_several(rules: &Rules, recipes: &[&RecipeCount]) -> Sought {
        let target = rules.target;
        let mut kinds: Vec<String> = Vec::new();
        let mut rows = Vec::new();
        for recipe in recipes {
            let kind = kind_of(rules, recipe, None);
            let place = kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
                kinds.push(kind);
                kinds.len() - 1
            });
            let mut values =
                vec![target.recipe.literal(recipe.recipe_id.as_deref().unwrap_or_default()), place.to_string()];
            if let Some(cutoff) = recipe.cutoff {
                values.push(at(target, cutoff));
                values.extend(target.id.columns.iter().zip(id_of(target, cutoff)).map(|((_, column), value)| {
                    value.map_or_else(|| format!("NULL::{}", column.sql_type), |value| column.literal(&value))
                }));
            }
            rows.push(format!("({})", values.join(", ")));
        }
        let has_cutoffs = recipes.iter().any(|recipe| recipe.cutoff.is_some());
        let ids: Vec<String> = (0..target.id.columns.len()).map(|place| format!("id_{place}")).collect();
        let columns = if has_cutoffs { format!(", failed_at, {}", ids.join(", ")) } else { String::new() };
        let is_of_kind = |(place, kind): (usize, &String)| format!("sought.kind OPERATOR(pg_catalog.=) {place}{kind}");
        let of_kinds: Vec<String> = kinds.iter().enumerate().map(is_of_kind).collect();
        let mut condition = format!(
            "{} OPERATOR(pg_catalog.=) sought.recipe AND ({}) AND {}",
            target.recipe.of_row(),
            of_kinds.join(" OR "),
            rules.condition()
        );
        if has_cutoffs {
            let ids: Vec<String> = ids.iter().map(|id| format!("sought.{id}")).collect();
            condition += &format!(
                " AND ({column} OPERATOR(pg_catalog.<) sought.failed_at
                       OR {column} OPERATOR(pg_catalog.=) sought.failed_at AND {})",
                target.id.is_before_columns(&ids),
                column = target.failed_at.of_row(),
            );
        }
        Sought { beside: format!("(VALUES {}) AS sought (recipe, kind{columns})", rows.join(", ")), condition }
    }

    /// Those of them that meet a condition, too.
    pub fn and(&self, condition: &str) -> Sought {
        Sought { beside: self.beside.clone(), condition: format!("{} AND {condition}", self.condition) }
    }

    /// The statement that returns something of each of them.
    pub fn select(&self, leaf: &Leaf, columns: &str, order: &str) -> String {
        let beside = if self.beside.is_empty() { String::new() } else { format!(", {}", self.beside) };
        format!("SELECT {columns} FROM {} g{beside} WHERE {} {order}", leaf.rows(), self.condition)
    }

    /// The statement that removes them, and returns `Policies::group_columns` and 1 of each.
    pub fn delete(&self, rules: &Rules, leaf: &Leaf) -> String {
        let beside = if self.beside.is_empty() { String::new() } else { format!(" USING {}", self.beside) };
        let group = rules.policies.group_columns(rules.target, &rules.target.recipe_key());
        format!("DELETE FROM {} g{beside} WHERE {} RETURNING {group}, 1::bigint", leaf.rows(), self.condition)
    }
}

/// Whether a statement can tell a recipe's rows by one comparison.
pub fn can_be_among_several(target: &Target, recipe: &RecipeCount) -> bool {
    recipe.recipe_id.as_ref().is_some_and(|id| target.is_of_recipe(id) == target.recipe.is(id))
}

/// The condition on a row `g` of a recipe, with an AND before it, that it is under this policy and has this status; empty where the recipe
/// says so.
fn kind_of(rules: &Rules, recipe: &RecipeCount, recipe_id: Option<Option<&str>>) -> String {
    let (target, policies) = (rules.target, &rules.policies);
    let mut condition = String::new();
    if policies.list.len() > 1 && (recipe_id.is_some() || !policies.are_by_recipe()) {
        condition += &format!(" AND {}", policies.is_under(recipe.policy, target, recipe_id));
    }
    if target.has_several_statuses() {
        condition += &format!(" AND {}", target.has_status(&target.names_of_statuses[recipe.status]));
    }
    condition
}

fn at(target: &Target, cutoff: Position) -> String {
    let at = instant_as_text(cutoff.at, target.failed_at.type_oid);
    format!("{}::{}", quote_literal(at), target.failed_at.sql_type)
}

/// The values of a cutoff's id. NULL is the newest.
fn id_of(target: &Target, cutoff: Position) -> Vec<Option<String>> {
    // SAFETY: the id of a position.
    cutoff.id.map_or_else(|| vec![None; target.id.columns.len()], |of_row| unsafe { target.id.values_of(of_row) })
}
