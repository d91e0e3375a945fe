use backlog_cleanup_report::{age_in_words, counted, is_unseen, plural};

use crate::history::samples::NAMED;
use crate::status::report::draw::{bytes, duration, number, sparkline};
use crate::status::report::facts::{Alert, Facts, Ranked, Runs, Span};

/// A page before it is printed.
pub struct Page {
    pub title: String,
    /// What to know first.
    pub verdict: String,
    /// Names and sentences.
    pub facts: Vec<(&'static str, String)>,
    /// A row per day or hour.
    pub spells: Vec<Row>,
    pub alerts: Vec<Told>,
    pub rankings: Vec<Ranking>,
    pub remark: Option<String>,
}

pub struct Row {
    pub name: String,
    pub rows_in: Option<i64>,
    pub rows_out: i64,
    pub in_scope: Option<i64>,
}

/// An alert: when, what, what to type.
pub struct Told {
    pub when: String,
    pub sentence: String,
    pub fix: Option<String>,
}

pub struct Ranking {
    pub title: String,
    /// Name, rows, trend.
    pub rows: Vec<(String, i64, String)>,
}

pub fn page(facts: &Facts) -> Page {
    let Facts { span, spells, runs, alerts, ranking } = facts;
    let rows = plural(&span.nouns.row_word);
    let known: Vec<i64> = spells.iter().filter_map(|spell| spell.rows_in).collect();
    let rows_in = (!known.is_empty()).then(|| known.iter().sum());
    let some = if span.names_some { format!(" (of the {NAMED} that each sample names)") } else { String::new() };
    let rankings = [("recipe", span.nouns.group_word.as_str()), ("failure type", "failure type")]
        .into_iter()
        .filter_map(|(what, title)| ranked(what, format!("New {rows} by {title}, last 24 hours{some}"), ranking))
        .collect();
    let mut told = vec![
        ("Now", now(span, &rows)),
        ("In", rows_in.map_or("not counted".into(), |rows_in| came(span, rows_in, &rows))),
        ("Out", went(span, runs, spells.iter().map(|spell| spell.rows_out).sum(), &rows)),
        ("Pace", pace(span)),
        ("Table", table(span)),
        ("Runs", ran(runs)),
    ];
    told.extend(cost(span, runs).map(|cost| ("Cost", cost)));
    let counts: Vec<Option<i64>> = spells.iter().map(|spell| spell.in_scope).collect();
    if counts.len() > 1 {
        told.insert(1, ("Course", format!("{} in scope, from first to last", sparkline(&counts))));
    }
    Page {
        title: format!("Backlog cleanup of \"{}\", {} to {} UTC", span.target, span.from, span.to),
        verdict: verdict(span, runs),
        facts: told,
        spells: spells
            .iter()
            .map(|spell| Row {
                name: spell.name.clone(),
                rows_in: spell.rows_in,
                rows_out: spell.rows_out,
                in_scope: spell.in_scope,
            })
            .collect(),
        alerts: alerts.iter().map(told_of).chain(others(span, alerts)).collect(),
        rankings,
        remark: (span.covered < 0.9).then(|| {
            format!(
                "Samples cover {:.0} % of this time: the numbers of rows that came in are too low.",
                100.0 * span.covered
            )
        }),
    }
}

/// A tick may be missed now and then, in seconds.
const USUAL: i64 = 900;

fn verdict(span: &Span, runs: &Runs) -> String {
    let since = span
        .sampled_ago
        .filter(|seconds| *seconds > USUAL)
        .map(|seconds| format!("Nothing has ticked for {}: what is told is of then. ", duration(seconds as f64)));
    let rules = match (span.rules, span.unmeasured) {
        (0, _) => "No rule of alerts is enabled. ".into(),
        (_, 0) => String::new(),
        (_, unmeasured) => format!("{} could not be measured: see the doctor. ", counted(unmeasured, "rule")),
    };
    format!("{}{rules}{}", since.unwrap_or_default(), state(span, runs))
}

fn state(span: &Span, runs: &Runs) -> String {
    let was = match span.over_alerts {
        0 => String::new(),
        over => format!(" {} opened and resolved.", counted(over, "alert")),
    };
    match (span.open_alerts, runs.failed) {
        (open @ 1.., _) => {
            format!("{} {} open: see below.{was}", counted(open, "alert"), if open == 1 { "is" } else { "are" })
        }
        (_, 1..) => format!("No alert is open, but {} did not complete.{was}", counted(runs.failed, "run")),
        _ if runs.runs == 0 => format!("No alert is open, and there was no run.{was}"),
        _ => {
            let is_lately = |ago: Option<i64>, most: i64| ago.is_some_and(|seconds| seconds <= most);
            let is_told_of_now = span.rules > 0
                && span.unmeasured == 0
                && is_lately(span.sampled_ago, USUAL)
                && is_lately(span.counted_ago, 2 * USUAL);
            let well = if is_told_of_now { "All is well: no" } else { "No" };
            let ended = if runs.stopped == 0 { "every run completed" } else { "no run failed" };
            format!("{well} alert is open, and {ended}.{was}")
        }
    }
}

fn now(span: &Span, rows: &str) -> String {
    let Some(in_scope) = span.in_scope else {
        return format!(
            "the {rows} were not counted: {}",
            span.not_counted.as_deref().unwrap_or("there is no sample yet")
        );
    };
    let oldest = span.oldest_age.map_or(String::new(), |age| format!("; the oldest from {}", age_in_words(age)));
    let removable = span.removable.map_or(String::new(), |removable| format!(", {} removable", number(removable)));
    let then =
        span.counted_ago.filter(|seconds| *seconds > 2 * USUAL).map(|seconds| format!("{}: ", age_in_words(seconds)));
    let since = match (span.removed_since, span.ran_then) {
        (0, false) => String::new(),
        (0, true) => "; a run was at work when that was counted".into(),
        (removed, _) => format!("; runs have removed {} since that was counted", number(removed)),
    };
    format!("{}{} {rows} in scope{removable}{oldest}{since}", then.unwrap_or_default(), number(in_scope))
}

fn came(span: &Span, rows_in: i64, rows: &str) -> String {
    let pace = span
        .rows_in_per_hour
        .map_or(String::new(), |pace| format!("; {} an hour in the last 24 hours", number(pace.round() as i64)));
    format!("{} {rows} came into scope{pace}", number(rows_in))
}

/// Of a time before the history, samples know what was removed, and nothing of the runs.
fn went(span: &Span, runs: &Runs, sampled: i64, rows: &str) -> String {
    let early = match span.adaptive_runs {
        0 => String::new(),
        runs => format!("; the tick has started {} early", number(runs)),
    };
    let kept = match runs.kept_back {
        0 => String::new(),
        kept => format!("; the last kept back {}", number(kept)),
    };
    let by = counted(runs.runs, "run");
    match &span.runs_since {
        None => format!("{} {rows} removed by {by}{early}{kept}", number(runs.removed)),
        Some(day) => format!(
            "{} {rows} removed, {} of them by the {by} since {day}, which the history still has{early}{kept}",
            number(sampled.max(runs.removed)),
            number(runs.removed)
        ),
    }
}

fn pace(span: &Span) -> String {
    // Rates are measured over times that differ by a little.
    let differ = |a: f64, b: f64| (a - b).abs() > 0.01 * a.max(b);
    let an_hour = |rows: f64| if rows < 1.0 { "less than one".into() } else { number(rows.round() as i64) };
    match (span.removable, span.seconds_to_clear, span.rows_in_per_hour.zip(span.rows_out_per_hour)) {
        (Some(1..), Some(seconds), _) => {
            format!("nothing removable is left in {} if it goes on as in the last 24 hours", duration(seconds))
        }
        (_, _, Some((rows_in, rows_out))) if rows_in > rows_out && differ(rows_in, rows_out) => {
            format!("the backlog grows by {} an hour: more comes than goes", an_hour(rows_in - rows_out))
        }
        (Some(0), ..) => "nothing to remove".into(),
        (_, _, Some((0.0, 0.0))) => "in the last 24 hours none came and none went".into(),
        (_, _, Some((rows_in, rows_out))) if rows_in < rows_out && differ(rows_in, rows_out) => {
            format!("the backlog shrinks by {} an hour: more goes than comes", an_hour(rows_out - rows_in))
        }
        (_, _, Some(_)) => "as many come as go".into(),
        _ => "not known yet".into(),
    }
}

fn table(span: &Span) -> String {
    let Some(size) = span.bytes else { return "not measured".into() };
    let pace = span.bytes_per_day.map_or(String::new(), |pace| {
        let (sign, then) = (if pace < 0.0 { "-" } else { "+" }, span.bytes_in_30_days.unwrap_or_default());
        format!(", {sign}{} a day: {} in 30 days", bytes(pace.abs()), bytes(then))
    });
    format!("{} with its indexes{pace}", bytes(size as f64))
}

fn ran(runs: &Runs) -> String {
    let Some(last) = &runs.last else { return "none".into() };
    let states = [(runs.completed, "completed"), (runs.stopped, "stopped"), (runs.failed, "did not complete")];
    let states: Vec<String> = states
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{} {state}", number(count)))
        .collect();
    let took = runs.p50.zip(runs.p95).zip(runs.max).map_or(String::new(), |((p50, p95), max)| {
        format!("; they took {} (median), {} (p95), {} at most", duration(p50), duration(p95), duration(max))
    });
    format!("{}{took}; the last is {last}", states.join(", "))
}

/// What the runs cost and gave back, as far as it is known.
fn cost(span: &Span, runs: &Runs) -> Option<String> {
    let wal = runs.wal_bytes.map(|wal| format!("{} of WAL", bytes(wal as f64)));
    let freed = span.bytes_per_row.map(|row| {
        format!("the removed rows took about {}, which VACUUM frees for new ones", bytes(row * runs.removed as f64))
    });
    let known: Vec<String> = wal.into_iter().chain(freed).collect();
    (runs.removed > 0 && !known.is_empty()).then(|| known.join("; "))
}

fn told_of(alert: &Alert) -> Told {
    let hands = alert.hands.as_ref().map_or(String::new(), |hands| format!(" ({hands})"));
    let when = match &alert.resolved {
        None => format!("open since {}, alert {}{hands}", alert.opened, alert.id),
        Some(resolved) if alert.times == 1 => format!("{} to {resolved}", alert.opened),
        Some(resolved) => format!("{} to {resolved}, and {} before", alert.opened, counted(alert.times - 1, "time")),
    };
    // What is not visible cannot be typed.
    let is_typed = |fix: &String| alert.resolved.is_none() && visible(fix) == *fix;
    let fix = alert.fix.clone().filter(is_typed);
    Told { when, sentence: alert.sentence.clone(), fix }
}

/// Those for which the page has no room.
fn others(span: &Span, alerts: &[Alert]) -> Option<Told> {
    let told: i64 = alerts.iter().map(|alert| alert.times).sum();
    let left = span.open_alerts + span.over_alerts - told;
    let sentence = "SELECT * FROM backlog_cleanup.alert ORDER BY id DESC".to_owned();
    (left > 0).then(|| Told { when: format!("{} more", number(left)), sentence, fix: None })
}

fn ranked(what: &str, title: String, ranking: &[Ranked]) -> Option<Ranking> {
    let of_kind = ranking.iter().filter(|ranked| ranked.what == what).take(5);
    let rows: Vec<_> = of_kind.map(|ranked| (called(ranked.name.as_deref()), ranked.rows_in, trend(ranked))).collect();
    (!rows.is_empty()).then_some(Ranking { title, rows })
}

fn called(name: Option<&str>) -> String {
    match name {
        None => "(none)".into(),
        Some("") => "(empty)".into(),
        Some(name) => name.to_owned(),
    }
}

/// Against the 24 hours before, if they are known.
fn trend(ranked: &Ranked) -> String {
    match ranked.rows_in_before {
        None => String::new(),
        Some(0) => "new".into(),
        Some(before) => format!("{:+.0} %", 100.0 * (ranked.rows_in - before) as f64 / before as f64),
    }
}

/// A text without characters that a terminal would obey, or that are there and not seen: failure types and names are what somebody has
/// written.
pub fn visible(text: &str) -> String {
    text.replace(is_unseen, " ")
}
