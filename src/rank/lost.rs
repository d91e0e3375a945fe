use std::collections::HashMap;

/// When a row failed, as what, and of which recipe; all `None` where that was not looked at.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Failure {
    /// Its hour or a longer time, in seconds since 1970.
    pub hour: Option<i64>,
    pub failure_type: Option<String>,
    /// As text, `bounded`, or `(none)`.
    pub recipe_id: Option<String>,
}

/// The failures that a run has removed. Of many rows a sample stands for all.
#[derive(Default)]
pub struct Lost(HashMap<Failure, f64>);

impl Lost {
    /// Adds rows that are gone, by a sample that was taken of them before.
    pub fn add(&mut self, sample: Vec<Failure>, removed: i64) {
        if removed <= 0 || sample.is_empty() {
            return;
        }
        let each = removed as f64 / sample.len() as f64;
        sample.into_iter().for_each(|failure| *self.0.entry(failure).or_default() += each);
    }

    /// Whole rows, which add up to all that are gone: `removed`.
    pub fn counted(&self, removed: i64) -> Vec<(Failure, i64)> {
        let mut failures: Vec<_> = self.0.iter().map(|(failure, rows)| (failure.clone(), *rows)).collect();
        failures.sort_by(|(a, _), (b, _)| a.cmp(b));
        let (mut sum, mut counted) = (0.0, 0);
        let mut whole = Vec::new();
        for (failure, rows) in failures {
            sum += rows;
            let up_to = (sum.round() as i64).min(removed);
            whole.push((failure, up_to - counted));
            counted = up_to;
        }
        whole.push((Failure::default(), removed - counted));
        whole.retain(|(_, rows)| *rows > 0);
        whole
    }
}
