use std::cmp::Ordering;

/// How the rows of a recipe compare, and what keeping one of them costs.
pub trait Ranks<Row> {
    /// The greater, the newer.
    fn compare(&self, a: &Row, b: &Row) -> Ordering;

    /// Makes a row outlive the scan that it came from.
    fn keep(&self, row: Row) -> Row;

    /// Frees what `keep` has allocated.
    fn release(&self, row: Row);
}

/// Keeps the `keep` newest rows of a recipe, fed in any order. Holds up to 2 x `keep` rows; when full it is partitioned once,
/// which is cheaper than inserting each row in order. The first `keep` are the newest so far, the oldest of them at
/// `keep - 1`.
pub struct Newest<Row>(Vec<Row>);

impl<Row> Default for Newest<Row> {
    fn default() -> Self {
        Newest(Vec::new())
    }
}

impl<Row> Newest<Row> {
    /// Adds a row; `goes` gets each row that `keep` newer ones push out.
    pub fn add(&mut self, row: Row, keep: usize, ranks: &impl Ranks<Row>, mut goes: impl FnMut(&Row)) {
        let rows = &mut self.0;
        let is_full = rows.len() >= keep;
        if is_full && (keep == 0 || ranks.compare(&row, &rows[keep - 1]).is_lt()) {
            return goes(&row);
        }
        rows.push(ranks.keep(row));
        if rows.len() == keep {
            rows.reserve_exact(keep);
        }
        if rows.len() == keep || rows.len() == 2 * keep {
            self.part(keep, ranks, goes);
        }
    }

    /// Called once all rows are added. Returns the oldest of the `keep` newest, or `None` if there are fewer.
    pub fn oldest(&mut self, keep: usize, ranks: &impl Ranks<Row>, goes: impl FnMut(&Row)) -> Option<&Row> {
        if self.0.len() > keep {
            self.part(keep, ranks, goes);
        }
        self.0.get(keep.checked_sub(1)?)
    }

    /// The rows that stay, once `oldest` was called.
    pub fn kept(&self) -> &[Row] {
        &self.0
    }

    /// Passes all rows but the `keep` newest to `goes`, and forgets them.
    fn part(&mut self, keep: usize, ranks: &impl Ranks<Row>, mut goes: impl FnMut(&Row)) {
        self.0.select_nth_unstable_by(keep - 1, |a, b| ranks.compare(b, a));
        for row in self.0.drain(keep..) {
            goes(&row);
            ranks.release(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers;

    impl Ranks<i32> for Numbers {
        fn compare(&self, a: &i32, b: &i32) -> Ordering {
            a.cmp(b)
        }

        fn keep(&self, row: i32) -> i32 {
            row
        }

        fn release(&self, _: i32) {}
    }

    #[test]
    fn the_newest_stay_in_whatever_order_they_come() {
        for keep in 0..8 {
            for count in 0..30 {
                for step in [1, 7, 11, 13, 29] {
                    let mut newest = Newest::default();
                    let mut gone = Vec::new();
                    let rows: Vec<i32> = (0..count).map(|row| row * step % 31).collect();
                    rows.iter().for_each(|row| newest.add(*row, keep, &Numbers, |row| gone.push(*row)));
                    let oldest = newest.oldest(keep, &Numbers, |row| gone.push(*row)).copied();
                    let mut sorted = rows.clone();
                    sorted.sort_unstable_by(|a, b| b.cmp(a));
                    gone.sort_unstable_by(|a, b| b.cmp(a));
                    assert_eq!(gone, sorted.iter().skip(keep).copied().collect::<Vec<_>>());
                    let kept = keep.checked_sub(1).and_then(|last| sorted.get(last).copied());
                    assert_eq!(oldest, kept, "keep {keep} of {rows:?}");
                }
            }
        }
    }
}
