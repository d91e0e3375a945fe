use pgrx::spi::quote_literal;

use crate::postgres::datum::instant_as_text;
use crate::postgres::table::Column;
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
        let (mut of_recipes, mut ids, mut of_kinds, mut times) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for recipe in recipes {
            let kind = kind_of(rules, recipe, None);
            let place = kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
                kinds.push(kind);
                kinds.len() - 1
            });
            of_kinds.push(place.to_string());
            of_recipes.push(recipe.recipe_id.clone());
            if let Some(cutoff) = recipe.cutoff {
                times.push(Some(instant_as_text(cutoff.at, target.failed_at.type_oid)));
                ids.push(id_of(target, cutoff));
            }
        }
        let mut list = vec![("recipe".to_owned(), target.recipe.array(&of_recipes))];
        let mut condition = format!("{} OPERATOR(pg_catalog.=) sought.recipe", target.recipe.of_row());
        if let [kind] = &kinds[..] {
            condition += kind;
        } else {
            list.push(("kind".into(), format!("'{{{}}}'::pg_catalog.int4[]", of_kinds.join(","))));
            let is_of = |(place, kind): (usize, &String)| format!("sought.kind OPERATOR(pg_catalog.=) {place}{kind}");
            let each: Vec<String> = kinds.iter().enumerate().map(is_of).collect();
            condition += &format!(" AND ({})", each.join(" OR "));
        }
        condition += &format!(" AND {}", rules.condition());
        if !times.is_empty() {
            list.push(("failed_at".into(), target.failed_at.array(&times)));
            let mut names = Vec::new();
            for (place, (_, column)) in target.id.columns.iter().enumerate() {
                let values: Vec<Option<String>> = ids.iter().map(|id| id[place].clone()).collect();
                list.push((format!("id_{place}"), column.array(&values)));
                names.push(format!("sought.id_{place}"));
            }
            condition += &format!(
                " AND ({column} OPERATOR(pg_catalog.<) sought.failed_at
                       OR {column} OPERATOR(pg_catalog.=) sought.failed_at AND {})",
                target.id.is_before_columns(&names),
                column = target.failed_at.of_row(),
            );
        }
        let (names, arrays): (Vec<_>, Vec<_>) =
            list.into_iter().map(|(name, array)| (name, format!("pg_catalog.unnest({array})"))).unzip();
        // With OFFSET Citus sends the list to each node once, and not with the statement on each shard.
        let beside = format!(
            "(SELECT * FROM ROWS FROM ({}) AS list ({}) OFFSET 0) AS sought",
            arrays.join(", "),
            names.join(", ")
        );
        Sought { beside, condition }
    }

    /// Those that are not among the newest of their recipes, which `can_rank_on_shards` ranks there anew.
    pub fn beyond_newest(rules: &Rules, leaf: &Leaf) -> Sought {
        let (target, policy) = (rules.target, rules.policies.default_policy());
        let (recipe, id, at) = (target.recipe.of_row(), target.id.value.of_row(), target.failed_at.of_row());
        let beside = format!(
            "(SELECT {recipe} AS recipe, {id} AS id, {at} AS failed_at, pg_catalog.row_number() OVER (
                         PARTITION BY {recipe} ORDER BY {at} DESC, {id} DESC) AS place
              FROM {} g WHERE {}) AS ranked",
            leaf.rows(),
            rules.condition()
        );
        let condition = format!(
            "{recipe} OPERATOR(pg_catalog.=) ranked.recipe AND {id} OPERATOR(pg_catalog.=) ranked.id
             AND {at} OPERATOR(pg_catalog.=) ranked.failed_at AND ranked.place OPERATOR(pg_catalog.>) {} AND {}",
            policy.keep,
            rules.condition()
        );
        Sought { beside, condition }
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

    /// The statement that removes them, and returns of each what `Tally::count_one` counts.
    pub fn delete(&self, rules: &Rules, leaf: &Leaf) -> String {
        let beside = if self.beside.is_empty() { String::new() } else { format!(" USING {}", self.beside) };
        let key = rules.target.recipe_key();
        let is_by_recipe = rules.policies.are_by_recipe() && !rules.target.has_several_statuses();
        let group = if is_by_recipe { key } else { rules.policies.group_columns(rules.target, &key) };
        format!("DELETE FROM {} g{beside} WHERE {} RETURNING {group}", leaf.rows(), self.condition)
    }
}

/// Whether a statement can tell a recipe's rows by one comparison with a value of a list.
pub fn can_be_among_several(target: &Target, recipe: &RecipeCount) -> bool {
    recipe.recipe_id.as_ref().is_some_and(|id| target.is_of_recipe(id) == target.recipe.is(id))
        && target.id.columns.iter().map(|(_, column)| column).chain([&target.recipe]).all(Column::can_be_listed)
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
