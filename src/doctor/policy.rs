use backlog_cleanup_report::Mode;
use pgrx::spi::quote_literal;

use crate::extension;
use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::postgres::now::rows_now;
use crate::rules::matching::Policies;
use crate::rules::policy::Names;
use crate::target::Target;

/// So many policies are named.
const NAMED: usize = 5;

/// Checks that there is a default policy, that it is enabled, that every other one can have rows, and that it has had some in the last
/// regular run.
pub fn policies(target: &Target) -> Result<Vec<Problem>> {
    let policies = Policies::of(target, Mode::Regular)?;
    let mut found = Vec::new();
    if !policies.default_policy().is_enabled {
        let detail = "the default policy is disabled: a regular run removes nothing under it".into();
        let enable = format!(
            "UPDATE backlog_cleanup.policy SET enabled = true \
             WHERE target = {} AND recipe_id IS NULL AND failure_type IS NULL AND status IS NULL",
            quote_literal(&target.name)
        );
        found.push(Problem { status: Status::Warn, detail, fix: Some(enable) });
    }
    let never: Vec<(&Names, String)> = policies
        .list
        .iter()
        .filter_map(|policy| Some((&policy.names, without_use(target, &policies, &policy.names)?)))
        .collect();
    found.extend(without_rows(target, &policies, &never)?);
    found.extend(never.into_iter().map(|(names, why)| Problem {
        status: Status::Warn,
        detail: format!("the policy for {} can never apply: {why}", names.said(target)),
        fix: Some(drop_policy(target, names)),
    }));
    Ok(found)
}

/// Why no row can have a policy: its status is out of scope, or those that name a status as well take each row.
fn without_use(target: &Target, policies: &Policies, names: &Names) -> Option<String> {
    let statuses = &target.names_of_statuses;
    if names.are_none() {
        return None;
    }
    if let Some(status) = &names.status {
        let is_out_of_scope = !statuses.contains(status);
        return is_out_of_scope
            .then(|| format!("runs of target \"{}\" do not remove rows of this status", target.name));
    }
    let with = |status: &String| Names { status: Some(status.clone()), ..names.clone() };
    let is_taken = |status: &String| policies.list.iter().any(|policy| policy.names == with(status));
    let are_taken = !statuses.is_empty() && statuses.iter().all(is_taken);
    are_taken.then(|| "there is one for each status beside it, and those come first".into())
}

/// The policies that no row had in the last regular run.
fn without_rows(target: &Target, policies: &Policies, never: &[(&Names, String)]) -> Result<Vec<Problem>> {
    const WITHOUT_ROWS: &str = "
        SELECT recipe_id, failure_type, status FROM backlog_cleanup.run_policy
        WHERE run_id = (SELECT id FROM backlog_cleanup.run
                        WHERE target = $1 AND mode = 'regular' AND state = 'completed' ORDER BY id DESC LIMIT 1)
          AND in_scope = 0
        ORDER BY place";
    if policies.list.len() == 1 || !extension::is_updated()? {
        return Ok(Vec::new());
    }
    let names: Vec<Names> = extension::as_owner(|| {
        rows_now(WITHOUT_ROWS, &[target.name.as_str().into()], |row| {
            Ok(Names { recipe_id: row.get(1)?, failure_type: row.get(2)?, status: row.get(3)? })
        })
    })?;
    let can_apply = |names: &Names| never.iter().all(|(others, _)| *others != names);
    let is_there = |names: &&Names| policies.list.iter().any(|policy| policy.names == **names) && can_apply(names);
    let names: Vec<&Names> = names.iter().filter(|names| !names.are_none()).filter(is_there).collect();
    let named = names.iter().take(NAMED).map(|names| Problem {
        status: Status::Warn,
        detail: format!("the last regular run has found no row under the policy for {}", names.said(target)),
        fix: Some(drop_policy(target, names)),
    });
    let others = names.len().saturating_sub(NAMED);
    let rest = (others > 0).then(|| Problem {
        status: Status::Warn,
        detail: format!("nor any under {others} other policies"),
        fix: Some("SELECT * FROM backlog_cleanup.run_policy WHERE in_scope = 0 ORDER BY run_id DESC, place".into()),
    });
    Ok(named.chain(rest).collect())
}

fn drop_policy(target: &Target, names: &Names) -> String {
    let arguments = [("recipe_id", &names.recipe_id), ("failure_type", &names.failure_type), ("status", &names.status)];
    let arguments = arguments
        .into_iter()
        .filter_map(|(argument, name)| name.as_ref().map(|name| format!("{argument} => {}, ", quote_literal(name))));
    format!(
        "SELECT backlog_cleanup_drop_policy({}target => {})",
        arguments.collect::<String>(),
        quote_literal(&target.name)
    )
}
