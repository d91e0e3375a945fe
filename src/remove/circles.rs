/// Finds the circles among numbered rows: Tarjan's strongly connected components, without recursion. `after` gives the rows that a
/// row references; those for which `is_in` is false are left out. Returns the rows, each circle in one piece and each row behind the rows
/// of other circles that reference it, with the length of each circle; that of a row in none is 1.
pub fn circles(
    rows: usize,
    is_in: impl Fn(usize) -> bool,
    after: impl Fn(usize) -> Vec<usize>,
) -> (Vec<usize>, Vec<usize>) {
    let mut search =
        Search { met: vec![0; rows], lowest: vec![0; rows], open: Vec::new(), found: Vec::new(), lengths: Vec::new() };
    for row in (0..rows).filter(|row| is_in(*row)) {
        if search.met[row] == 0 {
            search.from(row, &is_in, &after);
        }
    }
    let Search { mut found, mut lengths, .. } = search;
    // A circle is found behind those that it references.
    found.reverse();
    lengths.reverse();
    (found, lengths)
}

struct Search {
    /// When each row was met, from 1; 0 is not yet.
    met: Vec<u32>,
    /// The earliest met row of its circle that a row is known to reach; `CLOSED` once its circle is found.
    lowest: Vec<u32>,
    /// The rows that were met and are in no circle that is found.
    open: Vec<usize>,
    found: Vec<usize>,
    lengths: Vec<usize>,
}

const CLOSED: u32 = u32::MAX;

impl Search {
    fn from(&mut self, start: usize, is_in: &impl Fn(usize) -> bool, after: &impl Fn(usize) -> Vec<usize>) {
        let mut path = vec![self.meet(start, after)];
        while let Some((row, next)) = path.last_mut() {
            let row = *row;
            match next.pop() {
                Some(to) if !is_in(to) || self.lowest[to] == CLOSED => {}
                Some(to) if self.met[to] == 0 => path.push(self.meet(to, after)),
                Some(to) => self.lowest[row] = self.lowest[row].min(self.met[to]),
                None => {
                    path.pop();
                    if self.lowest[row] == self.met[row] {
                        self.close(row);
                    } else if let Some((before, _)) = path.last() {
                        self.lowest[*before] = self.lowest[*before].min(self.lowest[row]);
                    }
                }
            }
        }
    }

    fn meet(&mut self, row: usize, after: &impl Fn(usize) -> Vec<usize>) -> (usize, Vec<usize>) {
        let turn = self.met_so_far() + 1;
        (self.met[row], self.lowest[row]) = (turn, turn);
        self.open.push(row);
        (row, after(row))
    }

    fn met_so_far(&self) -> u32 {
        (self.found.len() + self.open.len()) as u32
    }

    /// The rows that were met since this one are its circle.
    fn close(&mut self, row: usize) {
        let start = self.open.iter().rposition(|open| *open == row).unwrap_or_default();
        let circle = self.open.split_off(start);
        circle.iter().for_each(|row| self.lowest[*row] = CLOSED);
        self.lengths.push(circle.len());
        self.found.extend(circle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: usize, references: &[(usize, usize)]) -> (Vec<usize>, Vec<usize>) {
        let after = |row| references.iter().filter(|(from, _)| *from == row).map(|(_, to)| *to).collect();
        circles(rows, |_| true, after)
    }

    #[test]
    fn rows_in_a_circle_are_one_and_come_behind_those_that_reference_them() {
        assert_eq!(of(3, &[(0, 1), (1, 2)]), (vec![0, 1, 2], vec![1, 1, 1]));
        let (rows, lengths) = of(6, &[(0, 1), (1, 0), (1, 2), (2, 3), (3, 4), (4, 2), (5, 0)]);
        assert_eq!(lengths, [1, 2, 3]);
        let sorted = |rows: &[usize]| {
            let mut rows = rows.to_vec();
            rows.sort_unstable();
            rows
        };
        assert_eq!((rows[0], sorted(&rows[1..3]), sorted(&rows[3..])), (5, vec![0, 1], vec![2, 3, 4]));
    }

    #[test]
    fn a_long_circle_and_a_long_chain_take_no_stack() {
        let next = |row: usize| vec![(row + 1) % 200_000];
        assert_eq!(circles(200_000, |_| true, next).1, [200_000]);
        let next = |row: usize| (row + 1 < 200_000).then_some(row + 1).into_iter().collect();
        assert_eq!(circles(200_000, |_| true, next), ((0..200_000).collect(), vec![1; 200_000]));
    }
}
