use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use backlog_cleanup_report::{DURATION_BOUNDS, Mode, State};
use chrono::Utc;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::figures::{Counted, EVERY_STATUS, Figures, POLICIES, TYPES};
use super::history::{History, Total};
use crate::client::watched::{LastTick, Watched};

/// The metrics as text, with their content type.
pub fn encode(
    history: Arc<History>,
    counted: Arc<BTreeMap<String, Counted>>,
    openmetrics: bool,
) -> (&'static str, String) {
    let mut registry = Registry::with_prefix("backlog_cleanup");
    registry.register_collector(Box::new(Shown { history, counted }));
    let mut buffer = String::new();
    let (content_type, encoded) = if openmetrics {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text::encode(&mut buffer, &registry))
    } else {
        (prometheus_text::CONTENT_TYPE, prometheus_text::encode(&mut buffer, &registry))
    };
    encoded.expect("a string takes everything");
    (content_type, buffer)
}

#[derive(Debug)]
struct Shown {
    history: Arc<History>,
    counted: Arc<BTreeMap<String, Counted>>,
}

type Labels = Vec<(&'static str, String)>;

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let to = &mut encoder;
        self.server(to)?;
        self.rows(to)?;
        self.runs(to)?;
        self.watched(to)?;
        self.counts(to)
    }
}

impl Shown {
    fn server(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let build = Info::new([
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("extension_version", self.history.extension.clone().unwrap_or_default()),
        ]);
        family(to, "build", "Version of this server, and of the extension in the database.", vec![(vec![], build)])?;
        let up = ConstGauge::new(i64::from(self.history.up));
        family(to, "up", "Whether the database answered this scrape.", vec![(vec![], up)])
    }

    /// What was counted in the tables.
    fn rows(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let rows =
            self.each(|figures| figures.rows.iter().map(|(status, rows)| (label("status", *status), *rows)).collect());
        family(to, "rows", "Rows of the account, by status; failed are those in scope.", rows)?;
        let removable = self.each(|figures| vec![(vec![], figures.removable)]);
        family(to, "removable_rows", "Rows in scope that a regular run would remove.", removable)?;
        let types = self.each(|figures| {
            figures.failure_types.iter().map(|(name, rows)| (label("failure_type", name), *rows)).collect()
        });
        let help =
            format!("Rows in scope by failure type: the {TYPES} most frequent, (other), and (none) without one.");
        family(to, "failed_rows", &help, types)?;
        let statuses = self.each(|figures| named("status", &figures.every_status, 0));
        let help = format!(
            "Rows of the account, by the status that they have: the {EVERY_STATUS} most frequent, and (other)."
        );
        family(to, "status_rows", &help, statuses)?;
        for (figure, (name, what)) in [("in_scope", "in scope before"), ("removed", "removed by")].iter().enumerate() {
            let of_run = |by: &str, most: usize| {
                format!("Rows {what} the last regular run, by {by}: the {most} with most rows, and (other).")
            };
            let policies = self.each(|figures| named("policy", &figures.policies, figure));
            family(to, &format!("policy_{name}_rows"), &of_run("policy", POLICIES), policies)?;
            let statuses = self.each(|figures| named("status", &figures.run_statuses, figure));
            family(to, &format!("status_{name}_rows"), &of_run("status", EVERY_STATUS), statuses)?;
        }
        let age = self.each(|figures| {
            let age = figures.oldest_failed_at.map(|at| (Utc::now() - at).as_seconds_f64().max(0.0));
            age.map(|age| (vec![], age)).into_iter().collect()
        });
        family(to, "oldest_failure_age_seconds", "Age of the oldest row in scope.", age)?;
        let books =
            self.each(|figures| figures.books_difference.map(|difference| (vec![], difference)).into_iter().collect());
        family(to, "books_difference_rows", "Removed rows of the ledger less those of the runs.", books)
    }

    /// What the runs did, with a series for every target, mode and result even if it is 0.
    fn runs(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let sum = |is_meant: &dyn Fn(&Total) -> bool, figure: fn(&Total) -> i64| {
            ConstCounter::new(self.history.totals.iter().filter(|t| is_meant(t)).map(figure).sum::<i64>() as u64)
        };
        let (mut removed, mut wal, mut runs, mut durations) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for target in self.history.last_success.keys() {
            for mode in Mode::ALL {
                let labels = vec![("target", target.clone()), ("mode", mode.to_string())];
                let is_mode = |total: &Total| total.target == *target && total.mode == *mode;
                removed.push((labels.clone(), sum(&is_mode, |total| total.removed)));
                wal.push((labels.clone(), sum(&is_mode, |total| total.wal_bytes)));
                for result in State::ALL.iter().filter(|state| **state != State::Running) {
                    let labels = [labels.clone(), label("result", result.as_str())].concat();
                    runs.push((labels, sum(&|total| is_mode(total) && total.state == *result, |total| total.runs)));
                }
                durations.push((labels, Durations::of(self.history.totals.iter().filter(|total| is_mode(total)))));
            }
        }
        family(to, "removed_rows", "Rows removed by all runs, by mode.", removed)?;
        family(to, "wal_bytes", "WAL that all runs have written, by mode.", wal)?;
        family(to, "runs", "Runs that have ended, by mode and result.", runs)?;
        family(to, "run_duration_seconds", "How long the runs that have ended took.", durations)?;
        let success = self.history.last_success.iter();
        let success =
            success.filter_map(|(target, at)| Some((label("target", target), ConstGauge::new((*at)?)))).collect();
        let help = "When the last regular run without a selection was completed.";
        family(to, "last_success_timestamp_seconds", help, success)?;
        let period = self.each(|figures| vec![(vec![], figures.period_days as f64 * 86_400.0)]);
        let help = "Longest time between two runs of the schedule; a day without one.";
        family(to, "schedule_period_seconds", help, period)
    }

    /// Alerts, ticks, samples and deliveries, as of this scrape.
    fn watched(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let Watched { open, tick, samples, failures } = &self.history.watched;
        let by = |name, all: &[(String, i64)]| {
            all.iter().map(|(value, number)| (label(name, value), ConstGauge::new(*number))).collect()
        };
        family(to, "alerts_open", "Alerts that are open, by rule.", by("rule", open))?;
        let tick = |figure: fn(&LastTick) -> f64| {
            tick.iter().map(|tick| (vec![], ConstGauge::new(figure(tick)))).collect::<Vec<_>>()
        };
        family(to, "tick_timestamp_seconds", "When the last tick was.", tick(|tick| tick.at))?;
        family(to, "tick_duration_seconds", "How long the last tick took.", tick(|tick| tick.seconds))?;
        let samples = samples.iter().map(|(target, at)| (label("target", target), ConstGauge::new(*at))).collect();
        family(to, "sample_timestamp_seconds", "When the last sample of the target was taken.", samples)?;
        let help = "Attempts in a row to deliver alerts to a channel that failed.";
        family(to, "channel_failures", help, by("channel", failures))
    }

    /// When the tables were counted.
    fn counts(&self, to: &mut DescriptorEncoder) -> fmt::Result {
        let success = self.counted.iter();
        let success = success
            .map(|(target, counted)| (label("target", target), ConstGauge::new(i64::from(counted.success))))
            .collect();
        family(to, "count_success", "Whether the last count of the target's tables succeeded.", success)?;
        let at = self.each(|figures| vec![(vec![], figures.at.timestamp_micros() as f64 / 1e6)]);
        family(to, "count_timestamp_seconds", "When the target's tables were last counted.", at)?;
        let took = self.each(|figures| vec![(vec![], figures.seconds)]);
        family(to, "count_duration_seconds", "How long the last count of the target's tables took.", took)
    }

    /// A gauge for each target that was counted.
    fn each<N>(&self, figures: impl Fn(&Figures) -> Vec<(Labels, N)>) -> Vec<(Labels, ConstGauge<N>)> {
        let mut all = Vec::new();
        for (target, counted) in self.counted.iter() {
            for (labels, number) in counted.figures.iter().flat_map(&figures) {
                all.push(([label("target", target), labels].concat(), ConstGauge::new(number)));
            }
        }
        all
    }
}

/// One of the figures that have a name.
fn named<const N: usize>(what: &'static str, all: &[(String, [i64; N])], figure: usize) -> Vec<(Labels, i64)> {
    all.iter().map(|(name, figures)| (label(what, name), figures[figure])).collect()
}

fn label(name: &'static str, value: impl Into<String>) -> Labels {
    vec![(name, value.into())]
}

fn family<M: EncodeMetric>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    metrics: Vec<(Labels, M)>,
) -> fmt::Result {
    let Some((_, first)) = metrics.first() else { return Ok(()) };
    let mut family = to.encode_descriptor(name, help, None, first.metric_type())?;
    for (labels, metric) in &metrics {
        metric.encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

/// A histogram, from the sums in `backlog_cleanup.total`.
struct Durations {
    seconds: f64,
    runs: u64,
    buckets: Vec<(f64, u64)>,
}

impl Durations {
    fn of<'a>(totals: impl Iterator<Item = &'a Total>) -> Durations {
        let mut durations =
            Durations { seconds: 0.0, runs: 0, buckets: DURATION_BOUNDS.into_iter().map(|bound| (bound, 0)).collect() };
        for total in totals {
            let Some(seconds_up_to) = total.seconds_up_to else { continue };
            durations.seconds += total.seconds.unwrap_or_default();
            durations.runs += total.runs as u64;
            for (_, runs) in durations.buckets.iter_mut().filter(|(bound, _)| *bound == seconds_up_to) {
                *runs += total.runs as u64;
            }
        }
        durations
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        encoder.encode_histogram::<NoLabelSet>(self.seconds, self.runs, &self.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
