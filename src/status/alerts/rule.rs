use backlog_cleanup_report::{Nouns, plural};
use serde::Deserialize;

use crate::extension;
use crate::obstacles::problem::rows_of;
use crate::postgres::error::Result;
use crate::postgres::read::read_one;

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
    #[serde(flatten)]
    nouns: Nouns,
}

impl Rule {
    /// The rules that are enabled, once per target that they are for. A rule for a target beats those of its kind for all, also if
    /// it is disabled.
    pub fn in_effect() -> Result<Vec<Rule>> {
        const RULES: &str = "
            SELECT jsonb_build_object('name', r.name, 'kind', kind, 'target', t.name, 'threshold', threshold,
                                      'resolve_at', coalesce(resolve_at, threshold),
                                      'within', coalesce(extract(epoch FROM within), 0),
                                      'has_open', EXISTS (SELECT FROM backlog_cleanup.alert a
                                                          WHERE rule = r.name AND a.target IS NOT DISTINCT FROM t.name
                                                            AND resolved_at IS NULL),
                                      'group_word', coalesce(group_word, 'recipe'), 'row_word', coalesce(row_word, 'generation'))
            FROM backlog_cleanup.alert_rule r
            LEFT JOIN backlog_cleanup.target t
                   ON kind <> 'history_size'
                  AND (r.target = t.name
                       OR r.target IS NULL AND NOT EXISTS (SELECT FROM backlog_cleanup.alert_rule own
                                                           WHERE own.kind = r.kind AND own.target = t.name))
            WHERE enabled AND (kind = 'history_size' OR t.name IS NOT NULL)
            ORDER BY t.name, r.name";
        rows_of(RULES, &[])
    }

    /// Whether no tick of such a piece of time (UTC) has measured it: what a rule cannot know is in the step.
    pub fn is_due(&self, every: &str) -> Result<bool> {
        const IS_DUE: &str = "
            SELECT NOT EXISTS (SELECT FROM backlog_cleanup.tick, jsonb_to_recordset(steps) AS step (step text, skipped text, error text)
                               WHERE started_at >= date_bin($3::interval, now(), '2000-01-01 00:00:00+00') AND started_at < now()
                                 AND step.step = 'alerts'
                                 AND strpos(concat(skipped, error), format('rule \"%s\" of target \"%s\": ', $1, $2)) = 0)";
        let arguments = [self.name.as_str().into(), self.target().into(), every.into()];
        Ok(extension::as_owner(|| read_one::<bool>(IS_DUE, &arguments))? == Some(true))
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
