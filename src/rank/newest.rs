use pgrx::pg_sys;

use crate::rank::position::{Order, Position};

/// An expired row: where it stands, and where it is.
pub struct Expired {
    pub position: Position,
    pub tid: pg_sys::ItemPointerData,
    /// The place of its leaf in the list of leaves.
    pub leaf: u32,
    pub is_selected: bool,
}

/// The newest expired rows of a recipe, whatever order they come in: `keep` of them, the oldest of those last, and up to as
/// many behind them that are not older than that one. To part them in one go costs less than to find each one's place.
#[derive(Default)]
pub struct Newest(Vec<Expired>);

impl Newest {
    /// Adds a row; `goes` gets each row that `keep` newer ones push out.
    pub fn add(&mut self, row: Expired, keep: usize, order: &Order, mut goes: impl FnMut(Expired)) {
        let rows = &mut self.0;
        let is_full = rows.len() >= keep;
        if is_full && (keep == 0 || order.compare(row.position, rows[keep - 1].position).is_lt()) {
            return goes(row);
        }
        rows.push(Expired { position: order.keep(row.position), ..row });
        if rows.len() == keep {
            rows.reserve_exact(keep);
        }
        if rows.len() == keep || rows.len() == 2 * keep {
            self.part(keep, order, goes);
        }
    }

    /// Ends the adding: the oldest row that stays, if others would have to go.
    pub fn oldest(&mut self, keep: usize, order: &Order, goes: impl FnMut(Expired)) -> Option<Position> {
        if keep == 0 {
            return Some(Position::NEWEST);
        }
        if self.0.len() > keep {
            self.part(keep, order, goes);
        }
        self.0.get(keep - 1).map(|oldest| oldest.position)
    }

    /// Lets all but the newest go.
    fn part(&mut self, keep: usize, order: &Order, mut goes: impl FnMut(Expired)) {
        self.0.select_nth_unstable_by(keep - 1, |a, b| order.compare(b.position, a.position));
        for row in self.0.drain(keep..) {
            order.free(row.position);
            goes(row);
        }
    }
}
