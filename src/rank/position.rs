use std::cmp::Ordering;

use pgrx::prelude::*;

use crate::postgres::table::Column;

/// Where a failed row stands among those of its recipe: by failed-at, then by id. The greater, the newer.
#[derive(Clone, Copy)]
pub struct Position {
    /// Microseconds since 2000, as both timestamp types have them.
    pub at: i64,
    /// NULL is the newest, as in ORDER BY ... DESC.
    pub id: Option<pg_sys::Datum>,
}

impl Position {
    /// Newer than every row that expires: a cutoff that lets all of them go.
    pub const NEWEST: Position = Position { at: i64::MAX, id: None };
}

/// How positions compare, by the order of the id column's type, and where their ids are kept.
pub struct Order {
    compare: *mut pg_sys::FmgrInfo,
    collation: pg_sys::Oid,
    is_by_value: bool,
    length: i32,
    context: pg_sys::MemoryContext,
}

impl Order {
    /// Ids are kept in the memory context that is current now.
    pub fn of(id: &Column) -> Order {
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
                let compared = unsafe { pg_sys::FunctionCall2Coll(self.compare, self.collation, a, b) };
                (compared.value() as i32).cmp(&0)
            }
            _ => a.id.is_none().cmp(&b.id.is_none()),
        })
    }

    /// The position with an id of its own, which outlives the row that it came from.
    pub fn keep(&self, position: Position) -> Position {
        Position { id: position.id.map(|id| self.copy(id)), ..position }
    }

    fn copy(&self, id: pg_sys::Datum) -> pg_sys::Datum {
        if self.is_by_value {
            return id;
        }
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.context);
            let copy = if self.length < 0 {
                pg_sys::pg_detoast_datum_copy(id.cast_mut_ptr()).cast::<u8>()
            } else {
                let length = self.length.unsigned_abs() as usize;
                let copy = pg_sys::palloc(length).cast::<u8>();
                std::ptr::copy_nonoverlapping(id.cast_mut_ptr::<u8>(), copy, length);
                copy
            };
            pg_sys::MemoryContextSwitchTo(before);
            pg_sys::Datum::from(copy)
        }
    }

    /// Gives back what `keep` took.
    pub fn free(&self, position: Position) {
        if let Some(id) = position.id.filter(|_| !self.is_by_value) {
            unsafe { pg_sys::pfree(id.cast_mut_ptr()) };
        }
    }
}
