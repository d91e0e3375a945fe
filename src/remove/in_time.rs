use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::postgres::error::Result;
use crate::rank::removable::Removable;
use crate::rank::tally::Tally;
use crate::remove::by_position::remove_around;
use crate::remove::left::Left;
use crate::remove::pieces::CHUNK;
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// How long a statement is to take: between two of them a run can be stopped.
const STATEMENT: Duration = Duration::from_millis(500);
/// Rows of the first statement on a table whose triggers or rules may take any time.
const FIRST: usize = 100;
/// How much larger a statement may be than the one before.
const GROWTH: usize = 10;

/// Removes the rows that can go, in statements that take about as long as `STATEMENT`, until the run is to end. Rows in circles go in
/// one statement or not at all, however long it takes. `tables` are the target's.
pub fn remove_in_time(
    rules: &Rules,
    leaf: &Leaf,
    tables: &[pg_sys::Oid],
    rows: &[Removable],
    in_circles: bool,
    tally: &mut Tally,
    left: &mut Left,
) -> Result<()> {
    let mut sizes = Sizes::of(leaf.table.has_triggers || leaf.table.has_rules);
    let mut tried = 0;
    while tried < rows.len() && !left.is_over()? {
        let size = if in_circles { rows.len() } else { sizes.next() };
        let chunk = &rows[tried..rows.len().min(tried + size)];
        let started = Instant::now();
        remove_around(rules, leaf, tables, chunk, tally, left)?;
        tried += chunk.len();
        sizes.took(chunk.len(), started);
    }
    left.untried += (rows.len() - tried) as i64;
    Ok(())
}

/// How many rows a statement has.
pub struct Sizes {
    size: usize,
    before: Option<Took>,
}

impl Sizes {
    /// `may_be_slow` says whether triggers or rules may take any time.
    pub fn of(may_be_slow: bool) -> Sizes {
        Sizes { size: if may_be_slow { FIRST } else { CHUNK }, before: None }
    }

    pub fn next(&self) -> usize {
        self.size
    }

    /// A statement of so many rows has taken as long as since then.
    pub fn took(&mut self, rows: usize, started: Instant) {
        let took = Took { rows: rows as f64, seconds: started.elapsed().as_secs_f64() };
        self.size = (took.fitting(self.before) as usize).clamp(1, GROWTH * self.size);
        self.before = Some(took);
    }
}

/// What a statement took.
#[derive(Clone, Copy)]
struct Took {
    rows: f64,
    seconds: f64,
}

impl Took {
    /// How many rows a statement has to have to take as long as it is to, if the one before took this: each takes some time, and so
    /// does each of its rows. Without end where rows take none, or where fewer of them would not make it shorter.
    fn fitting(self, before: Option<Took>) -> f64 {
        let per_row = match before {
            Some(before) if before.rows != self.rows => (self.seconds - before.seconds) / (self.rows - before.rows),
            _ => self.seconds / self.rows,
        };
        let per_row = per_row.max(0.0);
        let rest = STATEMENT.as_secs_f64() - (self.seconds - per_row * self.rows).max(0.0);
        if rest > 0.0 { rest / per_row } else { f64::INFINITY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of statements that take `constant` seconds and `per_row` for each of their rows.
    fn sizes(constant: f64, per_row: f64) -> Vec<usize> {
        let (mut size, mut before, mut sizes) = (FIRST, None, Vec::new());
        for _ in 0..6 {
            sizes.push(size);
            let took = Took { rows: size as f64, seconds: constant + per_row * size as f64 };
            size = (took.fitting(before) as usize).clamp(1, GROWTH * size);
            before = Some(took);
        }
        sizes
    }

    #[test]
    fn a_statement_takes_half_a_second_where_its_rows_do_and_as_many_rows_as_there_are_where_they_do_not() {
        assert_eq!(sizes(0.0, 0.005)[1..], [100; 5]);
        assert_eq!(sizes(0.0, 0.05)[1..], [10; 5]);
        assert!(sizes(0.1, 0.01)[2..].iter().all(|size| (38..=41).contains(size)), "{:?}", sizes(0.1, 0.01));
        assert!(sizes(1.0, 0.0)[5] >= 10_000, "{:?}", sizes(1.0, 0.0));
        assert!(sizes(0.0, 0.0)[5] >= 1_000_000);
    }
}
