use crate::postgres::citus::{Together, together};
use crate::postgres::error::Result;
use crate::postgres::stream::stream;
use crate::rank::position::{Order, Position};
use crate::rank::tally::Tally;
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// Whether shards can rank the rows in scope of a leaf that has all of the target's: each has all rows of a recipe that are in scope, and
/// they are ranked by one policy.
pub fn can_rank_on_shards(rules: &Rules, leaf: &Leaf) -> Result<bool> {
    let target = rules.target;
    let ([policy], [_], Some(recipe)) = (&rules.policies.list[..], &target.id.columns[..], &target.recipe_column)
    else {
        return Ok(false);
    };
    if !leaf.is_distributed
        || target.recipe.expression.is_some()
        || !target.recipe.has_one_text()
        || rules.selection.matches(target) != "true"
        || target.has_several_statuses()
        || policy.keep == 0
        || policy.keep_cutoff.is_some()
    {
        return Ok(false);
    }
    let account = target.account_column.as_ref().map(|account| account.number);
    let is_account =
        |name: &str| target.reads.iter().any(|(read, column)| read == name && Some(column.number) == account);
    Ok(match together(leaf.table.oid)? {
        Together::All => true,
        Together::Of(column) => column == *recipe || is_account(&column),
        Together::Unknown => false,
    })
}

/// Ranks the rows in scope of a target where they are: a shard returns one row for a recipe. Returns false, with nothing counted, if it
/// cannot.
pub fn rank_on_shards(rules: &Rules, leaves: &[Leaf], order: &Order, tally: &mut Tally) -> Result<bool> {
    let target = rules.target;
    let ([leaf], [policy], [(_, id)]) = (leaves, &rules.policies.list[..], &target.id.columns[..]) else {
        return Ok(false);
    };
    if !can_rank_on_shards(rules, leaf)? {
        return Ok(false);
    }
    let (failed_at, recipe) = (&target.failed_at, &target.recipe);
    let is_old = format!("({}) IS TRUE", target.failed_before(policy.cutoff.as_str()));
    let statement = format!(
        "SELECT {key}, NULL::pg_catalog.text, 0::bigint, pg_catalog.count(*),
                pg_catalog.count(*) FILTER (WHERE g.\"rank in recipe\" OPERATOR(pg_catalog.>) {keep}),
                pg_catalog.max(g.\"failed at\") FILTER (WHERE g.\"rank in recipe\" OPERATOR(pg_catalog.=) {keep}),
                (pg_catalog.array_agg(g.\"row id\") FILTER (WHERE g.\"rank in recipe\" OPERATOR(pg_catalog.=) {keep}))[1]
         FROM (SELECT {recipe} AS {recipe_name}, {at} AS \"failed at\", {id} AS \"row id\",
                      CASE WHEN {is_old} THEN pg_catalog.row_number() OVER (
                          PARTITION BY {recipe}, {is_old} ORDER BY {at} DESC, {id} DESC) END AS \"rank in recipe\"
               FROM {rows} g WHERE {is_failed}) g
         GROUP BY g.{recipe_name}",
        key = target.recipe_key(),
        keep = policy.keep,
        recipe = recipe.of_row(),
        recipe_name = recipe.name,
        at = failed_at.of_row(),
        id = id.of_row(),
        rows = leaf.rows(),
        is_failed = target.is_failed(),
    );
    leaf.reading_as_owner(target, || {
        stream(&statement, |row| {
            let place = tally.of_row(row);
            let recipe = &mut tally.list[place];
            recipe.failed += row.number(3).unwrap_or_default();
            recipe.removed += row.number(4).unwrap_or_default();
            // The oldest of those that stay.
            recipe.cutoff = row.number(5).map(|at| order.keep(Position { at, id: row.datum(6) }));
        })
    })?;
    Ok(true)
}
