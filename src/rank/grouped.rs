use crate::postgres::error::Result;
use crate::postgres::stream::stream;
use crate::rank::tally::Tally;
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// Counts the rows of a leaf that meet a condition, as failed and removed, per recipe; those of recipes of several columns one by one.
pub fn count_where(rules: &Rules, leaf: &Leaf, condition: &str, tally: &mut Tally) -> Result<()> {
    let (key, count, group_by) = match rules.target.recipe_columns {
        Some(_) => (rules.target.recipe_key(), "1::bigint", ""),
        None => (leaf.group_key(&rules.target.recipe), "pg_catalog.count(*)", "GROUP BY 1, 2, 3"),
    };
    let (group, table) = (rules.policies.group_columns(rules.target, &key), leaf.rows());
    stream(&format!("SELECT {group}, {count} FROM {table} g WHERE {condition} {group_by}"), |row| {
        tally.count_removed(row)
    })
}
