use std::fmt::{self, Display, Formatter};

use serde::Deserialize;

use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::target::TargetRow;

/// From one time of the day to another, which is not in it; over midnight if that is earlier. Texts of times sort as the times do.
#[derive(Clone, Deserialize)]
pub struct Window(String, String);

impl Window {
    /// Whether the time of the day, as PostgreSQL writes it, is in it.
    pub fn has(&self, time: &str) -> bool {
        let Window(from, to) = self;
        let (is_late, is_early) = (time >= from.as_str(), time < to.as_str());
        if from < to { is_late && is_early } else { is_late || is_early }
    }
}

impl Display for Window {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [from, to] = [&self.0, &self.1].map(|time| time.strip_suffix(":00").unwrap_or(time));
        write!(f, "{from} to {to}")
    }
}

impl TargetRow {
    /// Why a regular run in batches does not work now; `None` inside of `run_between`.
    pub fn outside_of_window(&self) -> Result<Option<String>> {
        const NOW: &str =
            "SELECT pg_catalog.timezone($1, pg_catalog.clock_timestamp())::pg_catalog.time::pg_catalog.text";
        let Some(window) = &self.run_between else { return Ok(None) };
        let now = read_one::<String>(NOW, &[self.time_zone.as_str().into()])?.unwrap_or_default();
        Ok((!window.has(&now)).then(|| format!("it is outside of run_between, {window} ({})", self.time_zone)))
    }
}
