use pgrx::prelude::*;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::status::alerts::measured::Value;
use crate::status::alerts::rule::Rule;

/// How many alerts of a rule and target are open at most: in an outage two thousand recipes fail at once.
const MOST: i64 = 10;

/// Updates the open alerts of a rule, resolves those whose value is low enough or gone, and opens new ones. An alert that somebody
/// has locked is left for the next time. `$1` rule, `$2` target, `$3` threshold, `$4` resolve_at, `$5` to `$9` the values, `$10` how many.
const KEEP: &str = "
    WITH measured AS (
        SELECT * FROM unnest($5, $6, $7, $8, $9) AS m (subject, value, sentence, fix, opens)
    ), open AS (
        SELECT id, subject FROM backlog_cleanup.alert
        WHERE rule = $1 AND target IS NOT DISTINCT FROM $2 AND resolved_at IS NULL
    ), unlocked AS (
        SELECT id FROM backlog_cleanup.alert WHERE id IN (SELECT id FROM open) FOR UPDATE SKIP LOCKED
    ), still AS (
        UPDATE backlog_cleanup.alert a
        SET value = m.value, sentence = m.sentence, fix = m.fix, threshold = $3
        FROM open JOIN measured m ON m.subject IS NOT DISTINCT FROM open.subject
        -- Below the threshold it only waits for its end: it is about what was above.
        WHERE a.id = open.id AND a.id IN (SELECT id FROM unlocked) AND m.value > $3
          AND (a.value, a.sentence, a.fix, a.threshold) IS DISTINCT FROM (m.value, m.sentence, m.fix, $3)
    ), over AS (
        UPDATE backlog_cleanup.alert a
        SET resolved_at = now()
        WHERE a.id IN (SELECT id FROM unlocked)
          AND NOT EXISTS (SELECT FROM measured m WHERE m.subject IS NOT DISTINCT FROM a.subject AND m.value > $4)
    )
    INSERT INTO backlog_cleanup.alert (rule, target, subject, value, threshold, sentence, fix, snoozed_until, note)
    SELECT $1, $2, m.subject, m.value, $3, m.sentence, m.fix, earlier.snoozed_until, earlier.note
    FROM (SELECT * FROM measured m
          WHERE value > $3 AND opens AND NOT EXISTS (SELECT FROM open WHERE open.subject IS NOT DISTINCT FROM m.subject)
          ORDER BY value DESC
          LIMIT greatest($10 - (SELECT count(*) FROM open), 0)) m
    LEFT JOIN LATERAL (
        SELECT snoozed_until, note FROM backlog_cleanup.alert e
        WHERE e.rule = $1 AND e.target IS NOT DISTINCT FROM $2 AND e.subject IS NOT DISTINCT FROM m.subject
        ORDER BY e.id DESC LIMIT 1) earlier ON earlier.snoozed_until > now()";

pub fn keep(rule: &Rule, values: &[Value]) -> Result<()> {
    if !rule.has_open && values.iter().all(|value| value.value <= rule.threshold) {
        return Ok(());
    }
    let about = rule.target.as_ref().map_or(String::new(), |target| format!("target \"{target}\": "));
    let subjects: Vec<Option<&str>> = values.iter().map(|value| value.subject.as_deref()).collect();
    let numbers: Vec<f64> = values.iter().map(|value| value.value).collect();
    let sentences: Vec<String> = values.iter().map(|value| format!("{about}{}", value.sentence)).collect();
    let fixes: Vec<Option<&str>> = values.iter().map(|value| value.fix.as_deref()).collect();
    let opens: Vec<bool> = values.iter().map(|value| value.opens).collect();
    extension::as_owner(|| {
        Spi::run_with_args(
            KEEP,
            &[
                rule.name.as_str().into(),
                rule.target.as_deref().into(),
                rule.threshold.into(),
                rule.resolve_at.into(),
                subjects.into(),
                numbers.into(),
                sentences.into(),
                fixes.into(),
                opens.into(),
                MOST.into(),
            ],
        )
        .map_err(spi)
    })
}

/// Resolves the open alerts whose rule is gone, disabled, or no longer for their target.
pub fn resolve_without_rule(rules: &[Rule]) -> Result<()> {
    const OVER: &str = "
        UPDATE backlog_cleanup.alert SET resolved_at = now()
        WHERE id IN (SELECT id FROM backlog_cleanup.alert a
                     WHERE resolved_at IS NULL
                       AND NOT EXISTS (SELECT FROM unnest($1, $2) AS r (rule, target)
                                       WHERE r.rule = a.rule AND r.target IS NOT DISTINCT FROM a.target)
                     FOR UPDATE SKIP LOCKED)";
    let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    let targets: Vec<Option<&str>> = rules.iter().map(|rule| rule.target.as_deref()).collect();
    extension::as_owner(|| Spi::run_with_args(OVER, &[names.into(), targets.into()]).map_err(spi))
}
