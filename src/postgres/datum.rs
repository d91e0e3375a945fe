use std::ffi::{CStr, c_int};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

/// How dates, intervals and floats are written, as the session has set it. While this lives they are written as every session reads them.
struct Styles {
    date: c_int,
    interval: c_int,
    digits: c_int,
}

impl Styles {
    fn set(date: c_int, interval: c_int, digits: c_int) -> Styles {
        // SAFETY: the variables of settings, in the one thread of a backend; each value is one that the setting can have.
        unsafe {
            Styles {
                date: (&raw mut pg_sys::DateStyle).replace(date),
                interval: (&raw mut pg_sys::IntervalStyle).replace(interval),
                digits: (&raw mut pg_sys::extra_float_digits).replace(digits),
            }
        }
    }
}

impl Drop for Styles {
    fn drop(&mut self) {
        std::mem::forget(Styles::set(self.date, self.interval, self.digits));
    }
}

/// A value as its type's output function writes it, whatever the session has set.
///
/// # Safety
///
/// `value` is of type `type_oid`, and not NULL.
pub unsafe fn text_of(value: pg_sys::Datum, type_oid: pg_sys::Oid) -> String {
    let _styles = Styles::set(pg_sys::USE_ISO_DATES as c_int, pg_sys::INTSTYLE_POSTGRES as c_int, 1);
    // SAFETY: the caller's; an output function returns a C string.
    unsafe {
        let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
        pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut is_varlena);
        CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, value)).to_string_lossy().into_owned()
    }
}

/// The values of a record's first columns; `None` for NULL.
///
/// # Safety
///
/// `record` is a row value of that many columns. A parallel worker sends it with a short header, of which this makes a copy.
pub unsafe fn values_of_record(record: pg_sys::Datum, columns: usize) -> Vec<Option<pg_sys::Datum>> {
    // SAFETY: the caller's.
    let record: pg_sys::HeapTupleHeader = unsafe { pg_sys::pg_detoast_datum(record.cast_mut_ptr()) }.cast();
    let value = |number| {
        let mut is_null = false;
        // SAFETY: the caller's.
        let value = unsafe { pg_sys::GetAttributeByNum(record, number, &raw mut is_null) };
        (!is_null).then_some(value)
    };
    (1..).take(columns).map(value).collect()
}

/// Microseconds since 2000, written as a `timestamp` or `timestamptz`.
pub fn instant_as_text(at: i64, type_oid: pg_sys::Oid) -> String {
    debug_assert!(matches!(type_oid, pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID));
    // SAFETY: both types are the 64 bits of such a number.
    unsafe { text_of(pg_sys::Datum::from(at), type_oid) }
}

/// Positions as a value of type `tid[]`. The array is a copy, so the lifetime is stricter than it need be.
pub fn tid_array(tids: &[pg_sys::ItemPointerData]) -> DatumWithOid<'_> {
    let mut pointers: Vec<pg_sys::Datum> = tids.iter().map(|tid| pg_sys::Datum::from(&raw const *tid)).collect();
    let length = size_of::<pg_sys::ItemPointerData>() as i32;
    // SAFETY: each element points to a `tid`, which has this length and alignment; construct_array copies them.
    unsafe {
        let array = pg_sys::construct_array(
            pointers.as_mut_ptr(),
            pointers.len() as i32,
            pg_sys::TIDOID,
            length,
            false,
            pg_sys::TYPALIGN_SHORT as core::ffi::c_char,
        );
        DatumWithOid::new(pg_sys::Datum::from(array), pg_sys::TIDARRAYOID)
    }
}
