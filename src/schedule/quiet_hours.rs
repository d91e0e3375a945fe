use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;

use crate::extension;
use crate::postgres::error::{Result, spi};
use crate::target::row::row;

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// An hour of the day in the target's time zone, and how busy the database is then: the medians of all days, and of each weekday.
pub struct Hour {
    pub hour: i32,
    pub rate: Option<f64>,
    of_day: [Option<f64>; 7],
    /// How many days it was sampled on.
    pub days: i64,
}

/// The 24 hours of the day by the samples of the last four weeks. An hour of which less than a half was sampled does not count, nor one
/// whose samples are of a longer time.
pub fn hours(target: &str, time_zone: &str) -> Result<Vec<Hour>> {
    let of_day: String = (1..=7)
        .map(|day| format!(", percentile_cont(0.5) WITHIN GROUP (ORDER BY rate) FILTER (WHERE day = {day})"))
        .collect();
    let hours = format!(
        "SELECT hour.of_day, percentile_cont(0.5) WITHIN GROUP (ORDER BY rate), count(rate) {of_day}
         FROM generate_series(0, 23) AS hour (of_day)
         LEFT JOIN (SELECT extract(hour FROM local)::integer, extract(isodow FROM local), transactions / seconds
                    FROM backlog_cleanup.sample CROSS JOIN LATERAL timezone($2, sampled_at) AS local
                    WHERE target = $1 AND grain = 'hour' AND sampled_at >= now() - interval '28 days'
                      AND seconds BETWEEN 1800 AND 5400 AND transactions IS NOT NULL) sampled (of_day, day, rate)
                USING (of_day)
         GROUP BY hour.of_day
         ORDER BY hour.of_day"
    );
    let hour = |row: SpiHeapTupleData| {
        let mut of_day = [None; 7];
        for (place, rate) in (4..).zip(&mut of_day) {
            *rate = row.get::<f64>(place)?;
        }
        Ok(Hour {
            hour: row.get(1)?.unwrap_or_default(),
            rate: row.get(2)?,
            of_day,
            days: row.get(3)?.unwrap_or_default(),
        })
    };
    extension::as_owner(|| {
        Spi::connect(|client| {
            client
                .select(hours.as_str(), None, &[target.into(), time_zone.into()])?
                .map(hour)
                .collect::<spi::Result<_>>()
        })
        .map_err(spi)
    })
}

/// The hour of the day at which the database is least busy; `None` before the first hour was sampled.
pub fn quietest<'a>(hours: impl IntoIterator<Item = &'a Hour>) -> Option<&'a Hour> {
    let sampled = hours.into_iter().filter_map(|hour| Some((hour.rate?, hour)));
    sampled.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, hour)| hour)
}

/// The hour of the week at which it is least busy: its place among the hours, and the weekday.
fn quietest_of_week(hours: &[Hour]) -> Option<(usize, usize)> {
    let of_hour = |(place, hour): (usize, &Hour)| -> Vec<_> {
        (0..7).filter_map(|day| Some((hour.of_day[day]?, (place, day)))).collect()
    };
    let sampled = hours.iter().enumerate().flat_map(of_hour);
    sampled.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, place)| place)
}

/// Returns how busy the database was at each hour of the day and of the week, in transactions per second: medians of the samples of the
/// last four weeks, NULL where there are none, by the clock of the target's time zone. The notes name the quietest hours. Reads only.
/// Errors: 22004, 42704 (unknown target).
#[allow(clippy::type_complexity)] // pgrx reads the columns from the signature itself
#[pg_extern(stable)]
fn backlog_cleanup_quiet_hours(
    target: default!(Option<&str>, "'generations'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(hour, String),
            name!(transactions_per_second, Option<f64>),
            name!(mon, Option<f64>),
            name!(tue, Option<f64>),
            name!(wed, Option<f64>),
            name!(thu, Option<f64>),
            name!(fri, Option<f64>),
            name!(sat, Option<f64>),
            name!(sun, Option<f64>),
            name!(note, Option<String>),
        ),
    >,
> {
    let target = row(target)?;
    let hours = hours(&target.name, &target.time_zone)?;
    let of_day = quietest(&hours).map(|hour| hour.hour);
    let of_week = quietest_of_week(&hours);
    let shown = |rate: Option<f64>| rate.map(|rate| (rate * 100.0).round() / 100.0);
    let rows: Vec<_> = hours
        .iter()
        .enumerate()
        .map(|(place, Hour { hour, rate, of_day: [mon, tue, wed, thu, fri, sat, sun], .. })| {
            let of_day = (of_day == Some(*hour)).then(|| "quietest of the day".to_owned());
            let of_week = of_week.filter(|(quietest, _)| *quietest == place);
            let of_week = of_week.map(|(_, day)| format!("quietest of the week on {}", DAYS[day]));
            let notes: Vec<String> = of_day.into_iter().chain(of_week).collect();
            let note = (!notes.is_empty()).then(|| notes.join(", "));
            let [mon, tue, wed, thu, fri, sat, sun] = [mon, tue, wed, thu, fri, sat, sun].map(|rate| shown(*rate));
            (format!("{hour:02}:00"), shown(*rate), mon, tue, wed, thu, fri, sat, sun, note)
        })
        .collect();
    Ok(TableIterator::new(rows))
}
