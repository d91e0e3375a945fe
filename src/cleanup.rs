use std::collections::HashMap;
use std::time::Instant;

use backlog_cleanup_report::{CleanupDetail, EmergencyReport, RegularReport};
use pgrx::JsonB;
use pgrx::prelude::*;

use crate::books;
use crate::error::{Result, error, required, spi};
use crate::owner::acting_as;
use crate::read::read_one;
use crate::sweep::{Policy, Selection, Swept, sweep};
use crate::target::{Target, state};

/// Removes the expired failed rows beyond the newest of each recipe. Returns a `RegularReport`.
#[pg_extern]
fn backlog_cleanup_failed_generations(
    target: default!(Option<&str>, "'generations'"),
    recipe_id: default!(Option<&str>, "NULL"),
    failure_type: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
) -> Result<JsonB> {
    let started = Instant::now();
    let dry_run = required(dry_run, "dry_run", "dry_run => true")?;
    let target = Target::load(target, !dry_run)?;
    let policy = default_policy(&target)?;
    let selection = Selection { policy: Some(&policy), recipe_id, failure_type };
    let (run_id, swept) = run(&target, "regular", &selection, dry_run)?;
    let names = recipe_names(&target)?;
    report(&RegularReport {
        success: true,
        message: message("Backlog cleanup completed successfully", dry_run),
        run_id,
        mode: "regular".into(),
        dry_run,
        cutoff: Some(policy.cutoff),
        total_failed_generations: swept.iter().map(|recipe| recipe.failed).sum(),
        cleaned_up_generations: swept.iter().map(|recipe| recipe.removed).sum(),
        recipes_affected: swept.len() as i64,
        cleanup_details: swept
            .iter()
            .map(|recipe| CleanupDetail {
                recipe_id: target.json_recipe_id(recipe.recipe_id.as_deref()),
                recipe_name: recipe_name(&names, recipe.recipe_id.as_deref()),
                failed_count: recipe.failed,
                cleaned_count: recipe.removed,
                kept_count: recipe.failed - recipe.removed,
            })
            .collect(),
        duration_ms: started.elapsed().as_millis() as i64,
        target: target.name,
    })
}

/// Removes every failed row of the account, whatever its age. Returns an `EmergencyReport`.
#[pg_extern]
fn backlog_cleanup_emergency(
    target: default!(Option<&str>, "'generations'"),
    recipe_id: default!(Option<&str>, "NULL"),
    failure_type: default!(Option<&str>, "NULL"),
    dry_run: default!(Option<bool>, "false"),
) -> Result<JsonB> {
    let started = Instant::now();
    let dry_run = required(dry_run, "dry_run", "dry_run => true")?;
    let target = Target::load(target, !dry_run)?;
    let selection = Selection { policy: None, recipe_id, failure_type };
    let (run_id, swept) = run(&target, "emergency", &selection, dry_run)?;
    report(&EmergencyReport {
        success: true,
        message: message("Emergency backlog cleanup completed successfully", dry_run),
        run_id,
        target: target.name,
        mode: "emergency".into(),
        dry_run,
        removed_count: swept.iter().map(|recipe| recipe.removed).sum(),
        recipes_affected: swept.iter().filter(|recipe| recipe.removed > 0).count() as i64,
        duration_ms: started.elapsed().as_millis() as i64,
    })
}

fn run(target: &Target, mode: &str, selection: &Selection, dry_run: bool) -> Result<(Option<i64>, Vec<Swept>)> {
    let caller = read_one::<String>("SELECT CURRENT_USER::pg_catalog.text", &[])?.unwrap_or_default();
    account_exists(target)?;
    if !dry_run {
        // Deferred triggers that the caller has queued fire now and as the caller; those of the run fire at once, as
        // the owner, and not at commit as the caller.
        Spi::run("SET CONSTRAINTS ALL IMMEDIATE").map_err(spi)?;
    }
    let swept = sweep(target, selection, dry_run)?;
    let run_id = if dry_run { None } else { books::write(target, mode, selection, &swept, &caller)? };
    Ok((run_id, swept))
}

fn message(done: &str, dry_run: bool) -> String {
    if dry_run { "Dry run: nothing was removed".into() } else { done.into() }
}

/// A report as SQL returns it.
pub fn report(report: &impl serde::Serialize) -> Result<JsonB> {
    serde_json::to_value(report).map(JsonB).map_err(|failure| {
        error(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, failure.to_string(), "report this as a bug".into())
    })
}

/// The default policy of a target, its cutoff counted in UTC and never in the future.
pub fn default_policy(target: &Target) -> Result<Policy> {
    let row = state(|| {
        Spi::connect(|client| -> spi::Result<_> {
            let rows = client.select(
                "SELECT pg_catalog.to_char(
                            LEAST(pg_catalog.timezone('UTC', pg_catalog.now()) OPERATOR(pg_catalog.-) max_age,
                                  pg_catalog.timezone('UTC', pg_catalog.now())),
                            'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), keep
                 FROM backlog_cleanup.policy
                 WHERE target OPERATOR(pg_catalog.=) $1 AND recipe_id IS NULL AND failure_type IS NULL AND enabled",
                Some(1),
                &[target.name.as_str().into()],
            )?;
            if rows.is_empty() { Ok(None) } else { rows.first().get_two::<String, i32>().map(Some) }
        })
        .map_err(spi)
    })?;
    match row {
        Some((Some(cutoff), Some(keep))) => Ok(Policy { cutoff, keep }),
        _ => Err(error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("target \"{}\" has no enabled default policy", target.name),
            format!("INSERT INTO backlog_cleanup.policy (target) VALUES ({})", spi::quote_literal(&target.name)),
        )),
    }
}

fn account_exists(target: &Target) -> Result<()> {
    let Some(users) = &target.users else { return Ok(()) };
    let found = acting_as(users.owner, &users.search_path, || {
        read_one::<bool>(
            &format!(
                "SELECT EXISTS (SELECT FROM {} u WHERE u.id::pg_catalog.text OPERATOR(pg_catalog.=) $1)",
                users.name
            ),
            &[target.account.as_str().into()],
        )
    })?;
    if found == Some(true) {
        return Ok(());
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("account \"{}\" does not exist in {}", target.account, users.name),
        "UPDATE backlog_cleanup.target SET users_table = NULL".into(),
    ))
}

/// The recipes' names by their ids as text.
pub fn recipe_names(target: &Target) -> Result<HashMap<String, String>> {
    let Some(recipes) = &target.recipes else {
        return Ok(HashMap::new());
    };
    acting_as(recipes.table.owner, &recipes.table.search_path, || {
        Spi::connect(|client| {
            client
                .select(
                    &format!(
                        "SELECT r.{}::pg_catalog.text, r.{}::pg_catalog.text FROM {} r",
                        recipes.key, recipes.name, recipes.table.name
                    ),
                    None,
                    &[],
                )?
                .map(|row| Ok((row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default())))
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })
}

/// A recipe's name as reports have it.
pub fn recipe_name(names: &HashMap<String, String>, id: Option<&str>) -> String {
    match id {
        None => "No recipe".into(),
        Some(id) => names.get(id).cloned().unwrap_or_else(|| "Unknown Recipe".into()),
    }
}
