use crate::remove::left::Patience;

/// Rows per statement of a run in one transaction: few enough to need little memory, many enough that starting a statement
/// costs nothing.
pub const CHUNK: usize = 50_000;
/// Pieces of a list of rows that are tried one after the other. What is refused is halved, until the rows are found that cannot go.
///
/// A half comes directly behind the piece that it is of: a row that goes is found soon where most go, and its neighbours, which
/// are probably like it, come next. Where nothing goes for a while, the largest piece comes next, once from its start and once from its
/// end: rows that cannot go may be next to each other, and rows that others reference are often older than those. Of that piece, rows
/// come first that wait for no others. Where nothing goes there either, it is put back, and the pieces follow behind which rows went.
pub struct Pieces<T> {
    /// The next piece is the last one.
    stack: Vec<Vec<T>>,
    patience: Patience,
    /// Refusals in a row, and after how many to look elsewhere.
    refused: usize,
    elsewhere: usize,
    at_one_end: usize,
    is_backwards: bool,
    trial: Option<Trial<T>>,
    /// Whether the next trial begins at a piece's end.
    is_next_backwards: bool,
}

/// A look at another place, of which nothing has gone yet.
struct Trial<T> {
    /// Where its pieces begin in the stack, and where they were.
    start: usize,
    place: usize,
    /// After how many refusals it ends.
    most: usize,
    /// The direction of the pieces before.
    was_backwards: bool,
    /// Whether no row waits for others, as far as is known.
    in_any_order: bool,
    /// Rows that were refused alone, as they may be too early.
    refused: Vec<T>,
}

impl<T: Clone> Pieces<T> {
    pub fn of(rows: &[T], patience: Patience) -> Pieces<T> {
        let stack = rows.chunks(rows.len().max(1)).map(<[T]>::to_vec).collect();
        let patience = patience.for_rows(rows.len());
        let elsewhere = patience.at_one_end();
        let (trial, is_backwards, is_next_backwards) = (None, false, true);
        Pieces { stack, patience, refused: 0, elsewhere, at_one_end: elsewhere, is_backwards, trial, is_next_backwards }
    }

    /// The next piece; `None` at the end, or once patience is over.
    pub fn next(&mut self, is_ready: impl Fn(&T) -> bool) -> Option<Vec<T>> {
        if self.patience.is_over() {
            return None;
        }
        let is_tried = |trial: &mut Trial<T>| self.stack.len() <= trial.start || self.refused >= trial.most;
        if let Some(trial) = self.trial.take_if(is_tried) {
            self.put_back(trial);
        } else if self.refused >= self.elsewhere {
            self.look_elsewhere(is_ready);
        }
        self.stack.pop()
    }

    fn look_elsewhere(&mut self, is_ready: impl Fn(&T) -> bool) {
        let are_ready = |piece: &Vec<T>| piece.iter().filter(|row| is_ready(row)).count();
        let Some(largest) = (0..self.stack.len()).max_by_key(|place| are_ready(&self.stack[*place])) else { return };
        let in_any_order = self.stack.iter().flatten().all(&is_ready);
        let (ready, rest): (Vec<T>, Vec<T>) = self.stack.remove(largest).into_iter().partition(|row| is_ready(row));
        let place = largest + usize::from(!rest.is_empty());
        self.stack.splice(largest..largest, (!rest.is_empty()).then_some(rest));
        self.trial = Some(Trial {
            start: self.stack.len(),
            place,
            most: self.elsewhere,
            was_backwards: self.is_backwards,
            in_any_order,
            refused: Vec::new(),
        });
        self.stack.extend((!ready.is_empty()).then_some(ready));
        (self.refused, self.is_backwards) = (0, self.is_next_backwards);
        self.is_next_backwards = !self.is_next_backwards;
    }

    /// Puts the rows of a trial back where they were. The next one goes on for longer.
    fn put_back(&mut self, Trial { start, place, was_backwards, refused, .. }: Trial<T>) {
        let mut tried = self.stack.split_off(start.min(self.stack.len()));
        tried.extend(self.in_order(refused));
        if !self.is_backwards {
            tried.reverse();
        }
        let rows = tried.concat();
        self.stack.splice(place..place, (!rows.is_empty()).then_some(rows));
        (self.refused, self.is_backwards) = (0, was_backwards);
        self.elsewhere *= 2;
    }

    /// Rows that were tried one by one, as a piece.
    fn in_order(&self, mut refused: Vec<T>) -> Option<Vec<T>> {
        if self.is_backwards {
            refused.reverse();
        }
        (!refused.is_empty()).then_some(refused)
    }

    /// The patience for the pieces of another list.
    pub fn patience(&self) -> Patience {
        self.patience.or_some()
    }

    /// Rows that were not tried one by one, as patience is over.
    pub fn rest(mut self) -> Vec<T> {
        self.stack.extend(self.trial.take().map(|trial| trial.refused));
        self.stack.reverse();
        self.stack.concat()
    }

    /// Puts a piece in front.
    pub fn first(&mut self, piece: Vec<T>) {
        self.stack.push(piece);
    }

    /// Rows have gone.
    pub fn went(&mut self) {
        self.patience.renew();
        self.refused = 0;
        if let Some(trial) = self.trial.take() {
            self.go_on_here(trial);
        }
    }

    /// Goes on where a trial has found rows that go, in its direction.
    fn go_on_here(&mut self, Trial { start, place, was_backwards, in_any_order, refused, .. }: Trial<T>) {
        match self.is_backwards == was_backwards {
            _ if !in_any_order => {}
            true => self.stack[..start].rotate_left(place),
            false => self.stack[place..start].reverse(),
        }
        let refused = self.in_order(refused);
        self.stack.splice(start..start, refused);
        self.elsewhere = self.at_one_end;
    }

    /// A piece was refused: loses patience.
    pub fn lose(&mut self) {
        self.patience.lose();
        self.refused += 1;
    }

    /// Halves a piece that was refused, unless all its rows are together. Rows that wait for others stay behind these.
    /// Returns false if it cannot be halved, and is not to be tried once more.
    pub fn halve(&mut self, piece: &[T], is_ready: impl Fn(&T) -> bool, are_together: impl Fn(&T, &T) -> bool) -> bool {
        let is_end = |at: &usize| !are_together(&piece[at - 1], &piece[*at]);
        let middle = piece.len() / 2;
        let Some(middle) = (middle..piece.len()).chain((1..middle).rev()).filter(|at| *at > 0).find(is_end) else {
            let [row] = piece else { return false };
            return self.trial.as_mut().map(|trial| trial.refused.push(row.clone())).is_some();
        };
        let (first, second) = piece.split_at(middle);
        let halves = if self.is_backwards && piece.iter().all(is_ready) { [first, second] } else { [second, first] };
        self.stack.extend(halves.map(<[T]>::to_vec));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statements that it takes to remove `all` rows, of which `refused` says what cannot go together, and the rows left.
    fn tries(all: u32, refused: impl Fn(&[u32]) -> bool) -> (usize, Vec<u32>) {
        tries_together(all, refused, |_, _| false)
    }

    fn tries_together(
        all: u32,
        refused: impl Fn(&[u32]) -> bool,
        together: impl Fn(u32, u32) -> bool,
    ) -> (usize, Vec<u32>) {
        let rows: Vec<u32> = (0..all).collect();
        let mut pieces = Pieces::of(&rows, Patience::default());
        let (mut tries, mut left) = (0, Vec::new());
        while let Some(piece) = pieces.next(|_| true) {
            tries += 1;
            if !refused(&piece) {
                pieces.went();
                continue;
            }
            pieces.lose();
            if !pieces.halve(&piece, |_| true, |a, b| together(*a, *b)) {
                left.extend(piece);
            }
        }
        left.extend(pieces.rest());
        left.sort_unstable();
        (tries, left)
    }

    fn those(all: u32, cannot_go: impl Fn(u32) -> bool) -> Vec<u32> {
        (0..all).filter(|row| cannot_go(*row)).collect()
    }

    #[test]
    fn finding_the_rows_that_cannot_go_costs_little() {
        let (tried, left) = tries(1_000_000, |piece| piece.contains(&700_000));
        assert!(tried <= 41 && left == [700_000], "{tried} {left:?}");
        let bad = |row: u32| row % 1_000 == 7;
        let (tried, left) = tries(100_000, |piece| piece.iter().copied().any(bad));
        assert!(left == those(100_000, bad) && tried < 100 * 2 * 17, "{tried} {left:?}");
    }

    #[test]
    fn rows_that_go_together_or_not_at_all_are_never_halved() {
        for length in [2, 3, 500, 10_000] {
            let circle = |row: u32| row / length;
            let is_cut = |piece: &[u32]| {
                !piece[0].is_multiple_of(length) || !(piece[piece.len() - 1] + 1).is_multiple_of(length)
            };
            let refused = |piece: &[u32]| is_cut(piece) || piece.contains(&4_321);
            let (tried, left) = tries_together(30_000, refused, |a, b| circle(a) == circle(b));
            assert_eq!(left, those(30_000, |row| circle(row) == circle(4_321)), "{length}");
            assert!(tried < 40, "{length}: {tried}");
        }
    }

    #[test]
    fn a_guard_against_many_rows_and_one_bad_row_keep_back_only_that_row() {
        assert_eq!(tries(20_000, |piece| piece.len() > 5 || piece.contains(&7)).1, [7]);
    }

    #[test]
    fn rows_that_can_go_are_found_among_many_that_cannot() {
        // The first so many rows, and of the others every so many-th, cannot go; or all but every so many-th.
        for (first, every) in
            [(4_000, 20), (3_000, 20), (30_000, 20), (30_000, 10), (10_000, 100), (1_200, 50), (0, 2), (0, 3)]
        {
            let bad = |row: u32| row < first || row.is_multiple_of(every);
            let (tried, left) = tries(50_000, |piece| piece.iter().copied().any(bad));
            let bad = those(50_000, bad).len();
            // The last few of them may be given up.
            assert!(left.len() - bad <= (50_000 - bad) / 200, "{first} {every}: {} {bad}", left.len());
            assert!(tried < 2 * 50_000, "{first} {every}: {tried}");
        }
        for every in [3, 6] {
            let bad = |row: u32| !row.is_multiple_of(every);
            assert!(tries(50_000, |piece| piece.iter().copied().any(bad)).1 == those(50_000, bad), "{every}");
        }
    }

    #[test]
    fn rows_that_younger_ones_hold_go_from_the_other_end() {
        // Row n goes only once row n + 100 has gone; the youngest of every tenth chain stays.
        let gone = std::cell::RefCell::new(vec![false; 5_000]);
        let holds =
            |row: u32| row < 4_900 && !gone.borrow()[row as usize + 100] || row >= 4_900 && row.is_multiple_of(10);
        let refused = |piece: &[u32]| {
            let is_held = piece.iter().any(|row| holds(*row) && !piece.contains(&(row + 100)));
            if !is_held {
                piece.iter().for_each(|row| gone.borrow_mut()[*row as usize] = true);
            }
            is_held
        };
        let left = tries(5_000, refused).1;
        assert!(left.len() < 2_000, "{}", left.len());
    }

    #[test]
    fn rows_that_younger_ones_hold_go_where_most_rows_stay() {
        // Row n goes only once row n + step has gone; of the youngest so many stay, and with them their chains.
        for (all, step, stay) in [(5_000, 50, 10), (30_000, 500, 10), (30_000, 50, 40), (30_000, 300, 40)] {
            let gone = std::cell::RefCell::new(vec![false; all as usize]);
            let holds = |row: u32| row + step < all && !gone.borrow()[(row + step) as usize];
            let refused = |piece: &[u32]| {
                let is_held = piece.iter().any(|row| *row >= all - stay || holds(*row));
                if !is_held {
                    piece.iter().for_each(|row| gone.borrow_mut()[*row as usize] = true);
                }
                is_held
            };
            let (tried, left) = tries(all, refused);
            let right = (all / step * stay) as usize;
            // The next pass takes those that the first look was at.
            assert!(left.len() < right + 150, "{all} {step} {stay}: {} {right}", left.len());
            assert!(tried < 2 * all as usize, "{all} {step} {stay}: {tried}");
        }
    }

    #[test]
    fn rows_in_the_order_of_their_references_go_where_many_are_refused() {
        // A thousand chains of 20, level by level: row n goes behind row n - 1,000. Of the first level, and of the others, some are refused.
        let (chains, all) = (1_000u32, 20_000u32);
        let is_bad = |row: u32| row < 100 || row % 20 == 7 || row / chains == 5 && !row.is_multiple_of(3);
        let state = std::cell::RefCell::new(vec![None; all as usize]);
        let is_held = |row: u32| {
            (row % chains..row).step_by(chains as usize).any(|of| state.borrow()[of as usize] == Some(false))
        };
        let is_ready = |row: &u32| *row < chains || state.borrow()[(*row - chains) as usize] == Some(true);
        let mut pieces = Pieces::of(&(0..all).collect::<Vec<_>>(), Patience::default());
        let mut tries = 0;
        while let Some(mut piece) = pieces.next(is_ready) {
            piece.retain(|row| !is_held(*row));
            tries += usize::from(!piece.is_empty());
            let goes = |row: &u32| !is_bad(*row) && (is_ready(row) || piece.contains(&(row - chains)));
            if piece.iter().all(goes) {
                piece.iter().for_each(|row| state.borrow_mut()[*row as usize] = Some(true));
                pieces.went();
                continue;
            }
            pieces.lose();
            if !pieces.halve(&piece, is_ready, |_, _| false) {
                state.borrow_mut()[piece[0] as usize] = Some(false);
            }
        }
        let is_free = |row: &u32| (row % chains..=*row).step_by(chains as usize).all(|of| !is_bad(of));
        let wrong = (0..all).filter(|row| is_free(row) != (state.borrow()[*row as usize] == Some(true))).count();
        assert!(wrong == 0 && tries < 4_000, "{wrong} {tries}");
    }

    #[test]
    fn patience_ends_where_nothing_goes() {
        let (tried, left) = tries(100_000, |_| true);
        assert_eq!((tried, left.len()), (1_000, 100_000));
    }
}
