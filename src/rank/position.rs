use std::cmp::Ordering;

use pgrx::PgMemoryContexts;
use pgrx::prelude::*;

use crate::postgres::table::Column;

/// The rank of a failed row within its recipe: by failed-at, then by id. The greater, the newer. Borrows its id from the row
/// that it was read from, or from the memory context of the `Order` that has kept it.
#[derive(Clone, Copy)]
pub struct Position {
    /// Microseconds since 2000, as both timestamp types have them.
    pub at: i64,
    /// NULL is the newest, as in ORDER BY ... DESC.
    pub id: Option<pg_sys::Datum>,
}

impl Position {
    /// The oldest at a time: a cutoff that lets all rows before it go, and none of that time.
    pub fn before(at: i64) -> Position {
        Position { at: at.saturating_sub(1), id: None }
    }
}

/// Bytes of an id that is saved with a cutoff.
const LONGEST_ID: usize = 8_000;

/// The first microsecond of both timestamp types (`MIN_TIMESTAMP`), which only `-infinity` is before.
const FIRST: i64 = -211_813_488_000_000_000;

/// Compares positions by the order of the id column's type, and keeps their ids, compressed if they are stored so.
pub struct Order {
    /// Lives in the type cache, which drops no entry.
    compare: *mut pg_sys::FmgrInfo,
    collation: pg_sys::Oid,
    is_by_value: bool,
    length: i32,
    context: pg_sys::MemoryContext,
}

impl Order {
    /// Keeps ids in the memory context that is current now; they live as long as it does.
    pub fn of(id: &Column) -> Order {
        // SAFETY: the type has an order, which `Target::load` has checked.
        unsafe {
            let entry = pg_sys::lookup_type_cache(id.type_oid, pg_sys::TYPECACHE_CMP_PROC_FINFO as i32);
            Order {
                compare: &raw mut (*entry).cmp_proc_finfo,
                collation: id.collation,
                is_by_value: (*entry).typbyval,
                length: (*entry).typlen.into(),
                context: pg_sys::CurrentMemoryContext,
            }
        }
    }

    #[inline]
    pub fn compare(&self, a: Position, b: Position) -> Ordering {
        a.at.cmp(&b.at).then_with(|| match (a.id, b.id) {
            (Some(a), Some(b)) => {
                // SAFETY: both are of the type whose comparison this is.
                let compared = unsafe { pg_sys::FunctionCall2Coll(self.compare, self.collation, a, b) };
                (compared.value() as i32).cmp(&0)
            }
            _ => a.id.is_none().cmp(&b.id.is_none()),
        })
    }

    /// The position with a copy of its id, which outlives the row that it came from.
    pub fn keep(&self, position: Position) -> Position {
        Position { id: position.id.map(|id| self.copy(id)), ..position }
    }

    fn copy(&self, id: pg_sys::Datum) -> pg_sys::Datum {
        if self.is_by_value {
            return id;
        }
        // SAFETY: the context outlives the order. A value that is not passed by value is a pointer to as many bytes as the
        // type's length says, or to a varlena where that is negative.
        unsafe {
            PgMemoryContexts::For(self.context).switch_to(|_| {
                let (mut value, mut length) = (id.cast_mut_ptr::<u8>(), self.length.unsigned_abs() as usize);
                if self.length < 0 {
                    let stored = pg_sys::detoast_external_attr(value.cast());
                    if !pgrx::varatt_is_4b_c(stored) {
                        return pg_sys::Datum::from(pg_sys::pg_detoast_datum_copy(stored));
                    }
                    (value, length) = (stored.cast(), pgrx::varsize_any(stored));
                }
                let copy = pg_sys::palloc(length).cast::<u8>();
                std::ptr::copy_nonoverlapping(value, copy, length);
                pg_sys::Datum::from(copy)
            })
        }
    }

    /// The position if its id is short enough to be saved; otherwise one from before which no more rows go: the end of the
    /// microsecond before, or `None` if there is none.
    pub fn rounded(&self, position: Position) -> Option<Position> {
        // SAFETY: a value of a type of variable length is a varlena.
        let is_long = |id| self.length < 0 && unsafe { pg_sys::toast_raw_datum_size(id) } > LONGEST_ID;
        if !position.id.is_some_and(is_long) {
            return Some(position);
        }
        (position.at > FIRST).then(|| Position::before(position.at))
    }

    /// Frees the id that `keep` has copied.
    ///
    /// # Safety
    ///
    /// The position comes from `keep` of this order, and no copy of it is used again.
    pub unsafe fn free(&self, position: Position) {
        if let Some(id) = position.id.filter(|_| !self.is_by_value) {
            // SAFETY: `copy` has allocated it.
            unsafe { pg_sys::pfree(id.cast_mut_ptr()) };
        }
    }
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use super::{Order, Position};
    use crate::postgres::table::Table;

    #[pg_test]
    fn a_position_is_newer_by_time_then_by_id_and_null_is_the_newest_id() {
        Spi::run("CREATE TABLE public.named (id text COLLATE \"C\")").expect("a table");
        let table = Table::find("public.named").expect("no error").expect("the table");
        let id = table.column("id").expect("no error").expect("the column");
        let order = Order::of(id);
        let position = |at, id: Option<&str>| Position { at, id: id.and_then(IntoDatum::into_datum) };
        let sorted = [
            position(i64::MIN, None),
            position(1, Some("B")),
            position(1, Some("a")),
            position(1, Some("aa")),
            position(1, None),
            position(2, Some("A")),
            position(i64::MAX, None),
        ];
        for (place, one) in sorted.into_iter().enumerate() {
            for (other_place, other) in sorted.into_iter().enumerate() {
                assert_eq!(order.compare(one, other), place.cmp(&other_place), "{place} and {other_place}");
                assert_eq!(order.compare(order.keep(one), other), place.cmp(&other_place), "a copy of {place}");
            }
        }
    }
}
