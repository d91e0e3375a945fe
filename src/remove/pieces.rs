use std::collections::VecDeque;

use crate::remove::left::Patience;

/// Pieces of a list of rows that are tried one after the other. What is refused is tried again in smaller pieces, until the rows
/// are found that cannot go.
pub struct Pieces<T> {
    queue: VecDeque<Vec<T>>,
    patience: Patience,
    /// The most rows that have gone at once.
    largest: usize,
}

impl<T: Clone> Pieces<T> {
    pub fn of(rows: &[T], patience: Patience) -> Pieces<T> {
        let queue = rows.chunks(rows.len().max(1)).map(<[T]>::to_vec).collect();
        Pieces { queue, patience, largest: 0 }
    }

    /// The next piece; `None` at the end, or once patience is over.
    pub fn next(&mut self) -> Option<Vec<T>> {
        if self.patience.is_over() { None } else { self.queue.pop_front() }
    }

    /// The patience for the pieces of another list.
    pub fn patience(&self) -> Patience {
        self.patience.or_some()
    }

    /// Rows that were not tried one by one, as patience is over.
    pub fn rest(self) -> Vec<T> {
        Vec::from(self.queue).concat()
    }

    /// Puts a piece in front.
    pub fn first(&mut self, piece: Vec<T>) {
        self.queue.push_front(piece);
    }

    /// A piece of so many rows was not refused.
    pub fn went(&mut self, rows: usize) {
        self.patience.renew();
        self.largest = self.largest.max(rows);
    }

    /// A piece was refused: loses patience.
    pub fn lose(&mut self) {
        self.patience.lose();
    }

    /// Splits a piece that was refused. Until the first reason is known, it goes straight for it; then the largest pieces come
    /// first: should patience end, most of the others have gone by then. No piece is larger than what has gone before: a
    /// trigger may refuse many rows at once.
    pub fn split(&mut self, piece: &[T], is_reason_known: bool) {
        let half = piece.len().div_ceil(2);
        if is_reason_known {
            let length = if self.largest > 0 { half.min(self.largest) } else { half };
            self.queue.extend(piece.chunks(length).map(<[T]>::to_vec));
        } else {
            piece.rchunks(half).for_each(|half| self.queue.push_front(half.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statements that it takes to remove `all` rows, of which `refused` says what cannot go together, and the rows left.
    fn tries(all: u32, refused: impl Fn(&[u32]) -> bool) -> (usize, Vec<u32>) {
        let rows: Vec<u32> = (0..all).collect();
        let mut pieces = Pieces::of(&rows, Patience::default());
        let (mut tries, mut left) = (0, Vec::new());
        while let Some(piece) = pieces.next() {
            tries += 1;
            if !refused(&piece) {
                pieces.went(piece.len());
                continue;
            }
            pieces.lose();
            match piece[..] {
                [row] => left.push(row),
                _ => pieces.split(&piece, !left.is_empty()),
            }
        }
        left.extend(pieces.rest());
        (tries, left)
    }

    #[test]
    fn finding_the_rows_that_cannot_go_costs_little() {
        let (tried, left) = tries(1_000_000, |piece| piece.contains(&700_000));
        assert!(tried <= 41 && left == [700_000], "{tried} {left:?}");
        let (tried, mut left) = tries(100_000, |piece| piece.iter().any(|row| row % 1_000 == 7));
        left.sort_unstable();
        assert!(
            left.iter().copied().eq((0..100).map(|row| row * 1_000 + 7)) && tried < 100 * 2 * 17,
            "{tried} {left:?}"
        );
    }

    #[test]
    fn a_guard_against_many_rows_and_one_bad_row_keep_back_only_that_row() {
        assert_eq!(tries(20_000, |piece| piece.len() > 5 || piece.contains(&7)).1, [7]);
    }

    #[test]
    fn patience_ends_where_nothing_goes() {
        let (tried, left) = tries(100_000, |_| true);
        assert_eq!((tried, left.len()), (1_000, 100_000));
    }
}
