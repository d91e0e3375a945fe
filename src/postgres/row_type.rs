//! Rows as values.

use pgrx::datum::DatumWithOid;
use pgrx::{AnyElement, PgTupleDesc, pg_sys, varsize_any};

/// The fields of a row, or of a document of columns, in their order, each with its type; none of what is no row.
pub fn fields(row: &AnyElement) -> Vec<DatumWithOid<'_>> {
    // SAFETY: the type says whether the datum is a row, whose header says of which columns; the values live as long as the datum.
    unsafe {
        if !pg_sys::type_is_rowtype(row.oid()) {
            return Vec::new();
        }
        let header = pg_sys::pg_detoast_datum(row.datum().cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let (type_oid, typmod) = ((*header).t_choice.t_datum.datum_typeid, (*header).t_choice.t_datum.datum_typmod);
        let described = pg_sys::lookup_rowtype_tupdesc(type_oid, typmod);
        let columns = PgTupleDesc::from_pg(described);
        let mut tuple = pg_sys::HeapTupleData {
            t_len: varsize_any(header.cast_const().cast()) as u32,
            t_data: header,
            ..Default::default()
        };
        let count = columns.len();
        let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); count], vec![false; count]);
        pg_sys::heap_deform_tuple(&mut tuple, described, values.as_mut_ptr(), nulls.as_mut_ptr());
        columns
            .iter()
            .zip(values.into_iter().zip(nulls))
            .map(|(column, (value, is_null))| match is_null {
                true => DatumWithOid::null_oid(column.atttypid),
                false => DatumWithOid::new(value, column.atttypid),
            })
            .collect()
    }
}
