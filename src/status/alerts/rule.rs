use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;

use backlog_cleanup_report::{Nouns, plural};
use pgrx::prelude::*;
use serde::Deserialize;

use crate::extension;
use crate::obstacles::problem::rows_of;
use crate::postgres::error::{Result, spi};
use crate::postgres::now::one_now;
use crate::status::alerts::measured::Value;

/// A rule, for one target.
#[derive(Deserialize)]
pub struct Rule {
    pub name: String,
    pub kind: String,
    /// `None` for a rule that is about no target.
    pub target: Option<String>,
    pub threshold: f64,
    pub resolve_at: f64,
    /// Seconds.
    pub within: f64,
    /// Whether alerts of it are open.
    pub has_open: bool,
    /// Whether it took too long within the last hour: it rests, so that its turn comes to all others.
    pub rests: bool,
    /// Whether others have taken all the time when it was to be measured last.
    is_missed: bool,
    #[serde(flatten)]
    nouns: Nouns,
    /// The runs of all targets that have failed, which are read once for all rules: pg_cron's history has no index for them.
    #[serde(skip)]
    pub failed_runs: Rc<OnceCell<HashMap<String, Value>>>,
}

impl Rule {
    /// The rules that are enabled, once per target that they are for, those first whose turn has not come for longest. A rule for a target beats those of its kind for all, also if
    /// it is disabled.
    pub fn in_effect() -> Result<Vec<Rule>> {
        const RULES: &str = "
            SELECT jsonb_build_object('name', r.name, 'kind', kind, 'target', t.name, 'threshold', threshold,
                                      'resolve_at', coalesce(resolve_at, threshold),
                                      'within', coalesce(extract(epoch FROM within), 0),
                                      'has_open', EXISTS (SELECT FROM backlog_cleanup.alert a
                                                          WHERE rule = r.name AND a.target IS NOT DISTINCT FROM t.name
                                                            AND resolved_at IS NULL),
                                      'rests', coalesce(was_ended AND measured_at BETWEEN now() - interval '1 hour' AND now(), false),
                                      'is_missed', missed_since IS NOT NULL,
                                      'group_word', coalesce(group_word, 'recipe'), 'row_word', coalesce(row_word, 'generation'))
            FROM backlog_cleanup.alert_rule r
            LEFT JOIN backlog_cleanup.target t
                   ON kind <> 'history_size'
                  AND (r.target = t.name
                       OR r.target IS NULL AND NOT EXISTS (SELECT FROM backlog_cleanup.alert_rule own
                                                           WHERE own.kind = r.kind AND own.target = t.name))
            LEFT JOIN backlog_cleanup.alert_measured m ON m.rule = r.name AND m.target = t.name
            WHERE enabled AND (kind = 'history_size' OR t.name IS NOT NULL)
            ORDER BY t.name IS NOT NULL, missed_since NULLS LAST, t.name, r.name";
        let failed_runs = Rc::<OnceCell<_>>::default();
        let mut rules: Vec<Rule> = rows_of(RULES, &[])?;
        rules.iter_mut().for_each(|rule| rule.failed_runs = Rc::clone(&failed_runs));
        Ok(rules)
    }

    /// Whether it was not measured in this piece of time (UTC), such as an hour: what takes long is not measured each time.
    pub fn is_due(&self, every: &str) -> Result<bool> {
        // A time of the future is of a clock that was ahead.
        const IS_DUE: &str = "
            SELECT NOT EXISTS (SELECT FROM backlog_cleanup.alert_measured
                               WHERE rule = $1 AND target = $2 AND measured_at <= now()
                                 AND measured_at >= date_bin($3::interval, now(), '2000-01-01 00:00:00+00'))";
        let arguments = [self.name.as_str().into(), self.target().into(), every.into()];
        Ok(extension::as_owner(|| one_now::<bool>(IS_DUE, &arguments))? == Some(true))
    }

    /// Records that it was measured for its target, or that this took too long and was ended.
    pub fn was_measured(&self, was_ended: bool) -> Result<()> {
        const MEASURED: &str = "
            INSERT INTO backlog_cleanup.alert_measured (rule, target, measured_at, was_ended) VALUES ($1, $2, now(), $3)
            ON CONFLICT (rule, target) DO UPDATE SET measured_at = now(), was_ended = $3";
        self.record(MEASURED, was_ended)
    }

    /// Records whether its turn has come.
    pub fn was_reached(&self, was_reached: bool) -> Result<()> {
        const REACHED: &str = "
            INSERT INTO backlog_cleanup.alert_measured AS m (rule, target, missed_since) VALUES ($1, $2, CASE WHEN NOT $3 THEN now() END)
            ON CONFLICT (rule, target) DO UPDATE SET missed_since = CASE WHEN NOT $3 THEN coalesce(m.missed_since, now()) END";
        if was_reached && !self.is_missed { Ok(()) } else { self.record(REACHED, was_reached) }
    }

    /// Forgets of all others what has kept them from being measured.
    pub fn forget_others(rules: &[Rule]) -> Result<()> {
        const FORGET: &str = "
            UPDATE backlog_cleanup.alert_measured SET was_ended = false, missed_since = NULL
            WHERE (was_ended OR missed_since IS NOT NULL) AND (rule, target) NOT IN (SELECT * FROM unnest($1, $2))";
        let of_targets = rules.iter().filter_map(|rule| Some((rule.name.clone(), rule.target.clone()?)));
        let (names, targets): (Vec<String>, Vec<String>) = of_targets.unzip();
        extension::as_owner(|| Spi::run_with_args(FORGET, &[names.into(), targets.into()]).map_err(spi))
    }

    fn record(&self, statement: &str, what: bool) -> Result<()> {
        let Some(target) = self.target.as_deref() else { return Ok(()) };
        let arguments = [self.name.as_str().into(), target.into(), what.into()];
        extension::as_owner(|| Spi::run_with_args(statement, &arguments).map_err(spi))
    }

    /// The target's name; empty for a rule that is about none.
    pub fn target(&self) -> &str {
        self.target.as_deref().unwrap_or_default()
    }

    /// What people call the rows of the target.
    pub fn rows(&self) -> String {
        plural(&self.nouns.row_word)
    }

    /// What people call a recipe of the target.
    pub fn recipe(&self) -> &str {
        &self.nouns.group_word
    }
}
