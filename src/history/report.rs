use std::rc::Rc;

use backlog_cleanup_report::{
    Batched, CleanupDetail, EmergencyReport, Foreseen, Mode, Nouns, PolicyDetail, RegularReport, State, StatusDetail,
    counted, kept_back_reason, recipe_id,
};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde::Serialize;

use crate::extension;
use crate::history::batches;
use crate::history::run::Run;
use crate::plan::{policies, statuses};
use crate::postgres::error::{Result, spi};
use crate::postgres::json::Json;
use crate::postgres::wal::{self, Wal};
use crate::rank::tally::{Counts, OfRecipe};
use crate::remove::left::{Left, Reason, TRIES};
use crate::rules::Rules;
use crate::rules::policy::{Names, Policy};
use crate::target::Target;
use crate::target::recipes::RecipeNames;

/// The report of a run of either mode.
#[derive(Serialize)]
#[serde(untagged)]
pub enum RunReport {
    Regular(RegularReport),
    Emergency(EmergencyReport),
}

impl RunReport {
    /// The report of a dry run, with what a real run would meet.
    pub fn foretelling(mut self, foreseen: Foreseen) -> RunReport {
        match &mut self {
            RunReport::Regular(report) => report.foreseen = foreseen,
            RunReport::Emergency(report) => report.foreseen = foreseen,
        }
        self
    }
}

/// What a run has done.
pub struct Done<'a> {
    pub message: String,
    /// Those that the report lists come first, `listed_first`.
    pub recipes: Vec<OfRecipe<'a>>,
    /// In the order of the run's policies.
    pub of_policies: Vec<Counts>,
    pub of_statuses: Vec<(Option<String>, Counts)>,
    pub kept_back: KeptBack,
    /// `None` of a dry run.
    pub wal: Option<Wal>,
    pub duration_ms: i64,
}

/// Makes the report of a run. A run without an id is a dry run, or a rehearsal.
pub fn report(rules: &Rules, run_id: Option<i64>, done: Done) -> Result<RunReport> {
    let Done { message, recipes, of_policies, of_statuses, kept_back, wal, duration_ms } = done;
    let (target, nouns, mode) = (rules.target.name.clone(), rules.target.nouns.clone(), rules.mode);
    let dry_run = run_id.is_none();
    let shown = shown(&recipes);
    let message = match recipes.len() {
        all if all > shown.len() => {
            let all = counted(all as i64, &nouns.group_word);
            format!("{message}; the details have {} of {all}", shown.len())
        }
        _ => message,
    };
    let names = RecipeNames::of(rules.target, shown.iter().map(|recipe| recipe.recipe_id.as_deref()))?;
    let cleanup_details = details(&names, rules.target.has_json_recipes(), shown);
    let removed = recipes.iter().map(|recipe| recipe.removed).sum();
    let policies = rules.policies.list.iter().zip(of_policies).take(POLICIES).map(policy_detail).collect();
    let statuses = of_statuses.into_iter().map(status_detail).collect();
    Ok(match rules.mode {
        Mode::Regular => RunReport::Regular(RegularReport {
            success: true,
            message,
            run_id,
            target,
            nouns,
            mode,
            dry_run,
            cutoff: rules.policies.default_policy().cutoff.instant().map(str::to_owned),
            total_failed_generations: recipes.iter().map(|recipe| recipe.failed).sum(),
            cleaned_up_generations: removed,
            recipes_affected: recipes.len() as i64,
            cleanup_details,
            foreseen: Foreseen::default(),
            kept_back_count: kept_back.rows,
            kept_back_reason: kept_back.reason,
            skipped_count: kept_back.skipped,
            held_count: kept_back.held,
            policies,
            statuses,
            wal_bytes: wal.map(|wal| wal.bytes),
            full_page_images: wal.map(|wal| wal.full_page_images),
            duration_ms,
        }),
        Mode::Emergency => RunReport::Emergency(EmergencyReport {
            success: true,
            message,
            run_id,
            target,
            nouns,
            mode,
            dry_run,
            removed_count: removed,
            recipes_affected: recipes.iter().filter(|recipe| recipe.removed > 0).count() as i64,
            cleanup_details,
            foreseen: Foreseen::default(),
            kept_back_count: kept_back.rows,
            kept_back_reason: kept_back.reason,
            skipped_count: kept_back.skipped,
            held_count: kept_back.held,
            policies,
            statuses,
            wal_bytes: wal.map(|wal| wal.bytes),
            full_page_images: wal.map(|wal| wal.full_page_images),
            duration_ms,
        }),
    })
}

/// The rows that a run has kept back, or has skipped as they were locked, as its report says it.
#[derive(Default)]
pub struct KeptBack {
    pub rows: i64,
    pub given_up: i64,
    pub skipped: i64,
    /// Held by policies.
    pub held: i64,
    pub reason: Option<String>,
}

impl KeptBack {
    pub fn of(left: &Left, held: i64) -> KeptBack {
        let reason =
            |reason: &Reason| kept_back_reason(reason.row.as_deref(), &reason.message, reason.sqlstate.as_deref());
        let Left { kept_back: rows, given_up, skipped, .. } = *left;
        KeptBack { rows, given_up, skipped, held, reason: left.reason.as_ref().map(reason) }
    }

    /// What the message of a run says of them.
    pub fn said(&self, Nouns { row_word, .. }: &Nouns) -> String {
        let mut said = match self.rows {
            0 => String::new(),
            1 => format!("; 1 {row_word} was kept back"),
            rows => format!("; {} were kept back", counted(rows, row_word)),
        };
        if self.given_up > 0 {
            said += &format!("; gave up on {} of them after {TRIES} refusals in a row", self.given_up);
        }
        said + &match self.held {
            0 => String::new(),
            1 => format!("; 1 {row_word} is held by a policy"),
            rows => format!("; {} are held by policies", counted(rows, row_word)),
        }
    }
}

/// So many recipes are listed in a report: a `jsonb` has at most 256 MB.
pub const LISTED: usize = 50_000;

/// Puts the recipes that a report lists first: most removed, then most failed.
pub fn listed_first(recipes: &mut [OfRecipe]) {
    let order =
        |a: &OfRecipe, b: &OfRecipe| (b.removed, b.failed, &a.recipe_id).cmp(&(a.removed, a.failed, &b.recipe_id));
    if recipes.len() > LISTED {
        recipes.select_nth_unstable_by(LISTED, order);
    }
    let listed = recipes.len().min(LISTED);
    recipes[..listed].sort_unstable_by(order);
}

/// So many recipes that lose no row are listed: after a quiet night nobody reads all of them.
const UNTOUCHED: usize = 1_000;

/// The recipes that the report of a run lists, of those in its order: the ones that lose rows come first.
fn shown<'a, 'r>(recipes: &'a [OfRecipe<'r>]) -> &'a [OfRecipe<'r>] {
    let lose = recipes.iter().filter(|recipe| recipe.removed > 0).count();
    &recipes[..recipes.len().min(lose + UNTOUCHED).min(LISTED)]
}

/// So many policies are listed.
const POLICIES: usize = 1_000;

fn policy_detail((policy, counts): (&Policy, Counts)) -> PolicyDetail {
    let Names { recipe_id, failure_type, status } = policy.names.clone();
    let Counts { in_scope, removed, kept_back } = counts;
    PolicyDetail { recipe_id, failure_type, status, in_scope, removed, kept: in_scope - removed, kept_back }
}

fn status_detail((status, counts): (Option<String>, Counts)) -> StatusDetail {
    let Counts { in_scope, removed, kept_back } = counts;
    StatusDetail { status, in_scope, removed, kept: in_scope - removed, kept_back }
}

/// What a run did per recipe, of the first `LISTED`.
pub fn details(names: &RecipeNames, is_json: bool, recipes: &[OfRecipe]) -> Vec<CleanupDetail> {
    let detail = |recipe: &OfRecipe| CleanupDetail {
        recipe_id: recipe_id(recipe.recipe_id.as_deref(), is_json),
        recipe_name: names.name(recipe.recipe_id.as_deref()),
        failed_count: recipe.failed,
        cleaned_count: recipe.removed,
        kept_count: recipe.failed - recipe.removed,
    };
    recipes.iter().take(LISTED).map(detail).collect()
}

/// The message of a completed run.
pub fn said(rules: &Rules, kept_back: &KeptBack) -> String {
    let done = match rules.mode {
        _ if rules.is_disabled() => {
            format!("The policy of target \"{}\" is disabled: nothing was removed", rules.target.name)
        }
        Mode::Regular => "Backlog cleanup completed successfully".into(),
        Mode::Emergency => "Emergency backlog cleanup completed successfully".into(),
    };
    done + &kept_back.said(&rules.target.nouns)
}

/// Closes a batched run, and returns its report.
pub fn finish(run: &Run, target: &Target) -> Result<Json> {
    let batch_milliseconds = batches::milliseconds(run.id)?;
    batches::keep_changed(run.id)?;
    let recipes = batches::sum_up(run.id)?;
    let rest = wal::uncounted();
    let closed = extension::as_owner(|| {
        Spi::get_one_with_args::<JsonB>(
            "UPDATE backlog_cleanup.run
             SET state = CASE state WHEN 'running' THEN 'completed' ELSE state END,
                 waiting_for = NULL, finished_at = clock_timestamp(),
                 wal_bytes = wal_bytes + $2, full_page_images = full_page_images + $3,
                 kept_back_sqlstate = CASE WHEN kept_back > 0 THEN kept_back_sqlstate END,
                 kept_back_message = CASE WHEN kept_back > 0 THEN kept_back_message END,
                 kept_back_row = CASE WHEN kept_back > 0 THEN kept_back_row END
             WHERE id = $1
             RETURNING to_jsonb(run) || jsonb_build_object(
                 'milliseconds', (extract(epoch FROM finished_at - started_at) * 1000)::bigint)",
            &[run.id.into(), rest.bytes.into(), rest.full_page_images.into()],
        )
        .map_err(spi)
    })?;
    let closed = closed.map_or(serde_json::Value::Null, |closed| closed.0);
    let number = |key: &str| closed[key].as_i64().unwrap_or_default();
    let state = closed["state"].as_str().and_then(|state| state.parse().ok()).unwrap_or(State::Stopped);
    let rules = run.rules(target, &Rc::new(policies::load(run.id)?));
    let text = |key: &str| closed[key].as_str();
    let reason = text("kept_back_message")
        .map(|message| kept_back_reason(text("kept_back_row"), message, text("kept_back_sqlstate")));
    let [rows, given_up, skipped, held] = ["kept_back", "given_up", "skipped", "held"].map(number);
    let kept_back = KeptBack { rows, given_up, skipped, held, reason };
    let message = if state == State::Completed { said(&rules, &kept_back) } else { "Stopped before its end".into() };
    Json::of(&Batched {
        report: report(
            &rules,
            Some(run.id),
            Done {
                message,
                recipes,
                of_policies: policies::counts(run.id)?,
                of_statuses: statuses::counts(run.id)?,
                kept_back,
                wal: Some(Wal { bytes: number("wal_bytes"), full_page_images: number("full_page_images") }),
                duration_ms: number("milliseconds"),
            },
        )?,
        state,
        batches: number("batches"),
        workers: number("workers"),
        batch_milliseconds,
    })
}
