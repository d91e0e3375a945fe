use std::fmt::{self, Display, Formatter};

use serde::Deserialize;

use crate::postgres::error::Result;
use crate::postgres::read::read_one;

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

    /// For how long it is closed at once, in hours, rounded up.
    pub fn closed_hours(&self) -> i32 {
        let minutes = |time: &str| {
            time.split(':').take(2).fold(0, |sum, part| 60 * sum + part.parse::<i32>().unwrap_or_default())
        };
        let open = (minutes(&self.1) - minutes(&self.0)).rem_euclid(24 * 60);
        (24 * 60 - open + 59) / 60
    }

    /// The minute and the hour at which it opens, by the clock of its time zone, as the schedule of a job of another one.
    pub fn opens(&self, time_zone: &str, job_zone: &str) -> Result<String> {
        // Today: it depends on daylight saving.
        const OPENS: &str = "
            SELECT pg_catalog.to_char(pg_catalog.timezone($3, pg_catalog.timezone($2, CURRENT_DATE OPERATOR(pg_catalog.+) $1::pg_catalog.time)),
                                      'FMMI FMHH24')";
        let job_zone = if job_zone.is_empty() { "GMT" } else { job_zone };
        let opens = read_one::<String>(OPENS, &[self.0.as_str().into(), time_zone.into(), job_zone.into()])?;
        Ok(opens.unwrap_or_default())
    }

    /// Says that it is outside of it, by the clock of a time zone; `None` inside of it.
    pub fn outside(&self, time_zone: &str) -> Result<Option<String>> {
        const NOW: &str =
            "SELECT pg_catalog.timezone($1, pg_catalog.clock_timestamp())::pg_catalog.time::pg_catalog.text";
        let now = read_one::<String>(NOW, &[time_zone.into()])?.unwrap_or_default();
        Ok((!self.has(&now)).then(|| format!("it is outside of run_between, {self} ({time_zone})")))
    }
}

impl Display for Window {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [from, to] = [&self.0, &self.1].map(|time| time.strip_suffix(":00").unwrap_or(time));
        write!(f, "{from} to {to}")
    }
}
