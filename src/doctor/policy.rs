use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use backlog_cleanup_report::{Mode, counted};
use pgrx::spi::quote_literal;

use crate::doctor::rows::BUDGET;
use crate::extension;
use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::postgres::now::{one_now, rows_now};
use crate::rank::one_pass::rank;
use crate::rules::matching::Policies;
use crate::rules::named::{Doubt, Named};
use crate::rules::policy::{Names, Policy};
use crate::rules::selection::Selection;
use crate::rules::{Rules, breaker};
use crate::target::Target;
use crate::target::leaf::{Reach, leaves};

/// So many policies are named.
const NAMED: usize = 5;

/// Checks that there is a default policy, that it is enabled, that rows can be under every other one, that no two are for the same, and
/// that each but the holds has had some in the last regular run.
pub fn policies(target: &Target) -> Result<Vec<Problem>> {
    let policies = Policies::of(target, Mode::Regular)?;
    let mut found = Vec::new();
    if !policies.default_policy().is_enabled {
        let detail = format!(
            "the default policy is disabled: a regular run removes nothing under it; decide whether it is to stay so, or type \
             UPDATE backlog_cleanup.policy SET enabled = true \
             WHERE target = {} AND recipe_id IS NULL AND failure_type IS NULL AND status IS NULL",
            quote_literal(&target.name)
        );
        found.push(Problem { status: Status::Warn, detail, fix: None });
    }
    let (doubted, problems) = in_doubt(target)?;
    found.extend(problems);
    found.extend(not_obeyed(target)?);
    found.extend(policies.list.iter().filter_map(|policy| shadowed(target, &policies, policy)));
    found.extend(lifted(target, &policies));
    found.extend(without_rows(target, &policies, &doubted)?);
    found.extend(too_many(target, policies)?);
    Ok(found)
}

/// Whether a regular run would be refused for the number of its rows. Of a larger table, which is not read, it says so.
fn too_many(target: &Target, policies: Policies) -> Result<Option<Problem>> {
    let leaves = leaves(target)?;
    let is_limited = target.max_share < 100.0 || target.max_rows_per_run.is_some();
    let pages: f64 = leaves.iter().map(|leaf| f64::from(leaf.pages)).sum();
    let is_read = leaves.iter().all(|leaf| leaf.reach == Reach::Position) && pages <= BUDGET;
    if !is_limited || policies.list.iter().all(|policy| !policy.is_enabled) {
        return Ok(None);
    }
    if !is_read {
        let detail = format!(
            "whether a run would remove more than max_share or max_rows_per_run allows was not looked at, since the table is large or \
             its rows are removed by key: type SELECT backlog_cleanup_failed_generations({}, dry_run => true)",
            quote_literal(&target.name)
        );
        return Ok(Some(Problem { status: Status::Ok, detail, fix: None }));
    }
    let selection = Selection { recipe_id: None, failure_type: None, status: None };
    let rules = Rules { target, selection, mode: Mode::Regular, policies: Rc::new(policies), include_held: false };
    let tally = rank(&rules, &leaves)?.tally;
    Ok(breaker::reason(target, tally.removed(), tally.failed()).map(|reason| Problem {
        status: Status::Fail,
        detail: format!("{reason}: decide whether these rows are to go, or the limit is to be another"),
        fix: None,
    }))
}

/// The policies that no row can be under, and what to do about them. No fix takes a hold away.
fn in_doubt(target: &Target) -> Result<(Vec<Names>, Vec<Problem>)> {
    let (mut doubted, mut found) = (Vec::new(), Vec::new());
    let all = Named::all(target)?;
    let taken: HashSet<Names> = all.iter().map(|policy| policy.names.clone().of_rows(target)).collect();
    for policy in all {
        let Some(doubt) = policy.doubt(target)? else { continue };
        let Named { names, is_hold } = policy;
        let what = if is_hold { "hold" } else { "policy" };
        let (said, drop) = (names.said(target), names.drop(target));
        let (detail, fix) = match doubt {
            Doubt::Unreadable(reason) if is_hold => (
                format!("no row can be under the {what} for {said}: {reason}; decide what to hold, and type {drop}"),
                None,
            ),
            Doubt::Unreadable(reason) => (format!("no row can be under the {what} for {said}: {reason}"), Some(drop)),
            Doubt::Otherwise(written) => {
                let detail = format!("no row is under the {what} for {said}: rows have {}", written.said(target));
                // Under a fingerprint are more rows than those of the message. Another policy may be for them.
                match (is_hold || written.failure_type == names.failure_type) && !taken.contains(&written) {
                    true => (detail, Some(rename(target, &names, &written))),
                    false => (format!("{detail}; decide whether it is to be for these, and type {drop}"), None),
                }
            }
        };
        found.push(Problem { status: Status::Fail, detail, fix });
        doubted.push(names.of_rows(target));
    }
    let others = found.split_off(found.len().min(NAMED)).len();
    let rest = (others > 0).then(|| {
        let detail = format!("nor can any be under {}", counted(others as i64, "other policy"));
        Problem { status: Status::Fail, detail, fix: None }
    });
    found.extend(rest);
    Ok((doubted, found))
}

/// The statement that gives a policy the names that rows have.
fn rename(target: &Target, names: &Names, written: &Names) -> String {
    let list = |names: &Names| {
        let names = [&names.recipe_id, &names.failure_type, &names.status];
        names.map(|name| name.as_ref().map_or("NULL".into(), quote_literal)).join(", ")
    };
    format!(
        "UPDATE backlog_cleanup.policy SET (recipe_id, failure_type, status) = ROW({}) \
         WHERE (target, recipe_id, failure_type, status) IS NOT DISTINCT FROM ({}, {})",
        list(written),
        quote_literal(&target.name),
        list(names)
    )
}

/// The policies of which another one takes all rows, since it names the same: an earlier version, or a column that was text, has let in
/// `07` and `7`. No fix takes a hold away that is obeyed.
fn not_obeyed(target: &Target) -> Result<Vec<Problem>> {
    let mut obeyed: HashMap<Names, Names> = HashMap::new();
    let mut found = Vec::new();
    for Named { names, .. } in Named::all(target)? {
        match obeyed.entry(names.clone().of_rows(target)) {
            Entry::Vacant(of_rows) => drop(of_rows.insert(names)),
            Entry::Occupied(of_rows) => found.push(Problem {
                status: Status::Fail,
                detail: format!("two policies are for the same rows: {}", names.beside(of_rows.get(), target)),
                fix: Some(names.drop(target)),
            }),
        }
    }
    found.truncate(NAMED);
    Ok(found)
}

/// What is wrong with a policy whose rows all have one that names their status as well. No fix takes a hold away.
fn shadowed(target: &Target, policies: &Policies, policy: &Policy) -> Option<Problem> {
    let (names, statuses) = (&policy.names, &target.names_of_statuses);
    let with = |status: &String| Names { status: Some(status.clone()), ..names.clone() };
    let is_taken = |status: &String| policies.list.iter().any(|policy| policy.names == with(status));
    if names.status.is_some() || statuses.is_empty() || !statuses.iter().all(is_taken) {
        return None;
    }
    if names.are_none() {
        let detail = "the default policy can never apply: there is one for each status, and those come first".into();
        return Some(Problem { status: Status::Ok, detail, fix: None });
    }
    let detail = format!(
        "the policy for {} can never apply: there is one for each status beside it, and those come first",
        names.said(target)
    );
    Some(Problem { status: Status::Warn, detail, fix: (!policy.is_hold()).then(|| names.drop(target)) })
}

/// The holds of which another policy can take rows out: it names what comes first.
fn lifted(target: &Target, policies: &Policies) -> Vec<Problem> {
    let holds = policies.list.iter().filter(|policy| policy.is_hold());
    let enabled = || policies.list.iter().filter(|policy| policy.is_enabled);
    let mut found =
        holds.flat_map(|hold| enabled().filter_map(|policy| policy.names.lift(&hold.names, &target.nouns.group_word)));
    let problem =
        |lifted| Problem { status: Status::Warn, detail: format!("{lifted}: decide whether they may go"), fix: None };
    let told: Vec<Problem> = found.by_ref().take(NAMED).map(problem).collect();
    let rest = found.count();
    let rest = (rest > 0).then(|| Problem {
        status: Status::Warn,
        detail: format!("so are rows of {} under policies that come first", counted(rest as i64, "other hold")),
        fix: None,
    });
    told.into_iter().chain(rest).collect()
}

/// The policies that no row had in the last regular run. A hold may wait for its rows.
fn without_rows(target: &Target, policies: &Policies, doubted: &[Names]) -> Result<Vec<Problem>> {
    const LAST_RUN: &str = "SELECT id FROM backlog_cleanup.run
        WHERE target = $1 AND mode = 'regular' AND state = 'completed' ORDER BY id DESC LIMIT 1";
    const WITHOUT_ROWS: &str = "
        SELECT recipe_id, failure_type, status FROM backlog_cleanup.run_policy WHERE run_id = $1 AND in_scope = 0 ORDER BY place";
    if policies.list.len() == 1 || !extension::is_updated()? {
        return Ok(Vec::new());
    }
    let Some(last_run) = extension::as_owner(|| one_now::<i64>(LAST_RUN, &[target.name.as_str().into()]))? else {
        let others = counted(policies.list.len() as i64 - 1, "other policy");
        let detail = format!("no regular run has looked for rows under {others} yet");
        return Ok(vec![Problem { status: Status::Ok, detail, fix: None }]);
    };
    let names: Vec<Names> = extension::as_owner(|| {
        rows_now(WITHOUT_ROWS, &[last_run.into()], |row| {
            Ok(Names { recipe_id: row.get(1)?, failure_type: row.get(2)?, status: row.get(3)? })
        })
    })?;
    let policy_of = |names: &Names| policies.list.iter().find(|policy| policy.names == *names);
    let named = names.iter().filter(|names| !names.are_none() && !doubted.contains(names));
    let (holds, others): (Vec<_>, Vec<_>) =
        named.filter_map(|names| Some((names, policy_of(names)?))).partition(|(_, policy)| policy.is_hold());
    let problem = |status, (names, _): &(&Names, _)| {
        let (what, decide) = match status {
            Status::Ok => ("hold", "it may wait for one"),
            _ => ("policy", "decide whether it is to stay"),
        };
        let detail =
            format!("the last regular run has found no row under the {what} for {}: {decide}", names.said(target));
        Problem { status, detail, fix: None }
    };
    let told = others.iter().take(NAMED).map(|policy| problem(Status::Warn, policy));
    let waiting = holds.iter().take(NAMED).map(|policy| problem(Status::Ok, policy));
    let rest = others.len().saturating_sub(NAMED);
    let rest = (rest > 0).then(|| Problem {
        status: Status::Warn,
        detail: format!(
            "nor any under {}, of those in backlog_cleanup.run_policy",
            counted(rest as i64, "other policy")
        ),
        fix: None,
    });
    Ok(told.chain(rest).chain(waiting).collect())
}
