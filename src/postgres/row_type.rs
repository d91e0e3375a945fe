//! The types of the rows of tables.

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    /// Whether a row type is that of a child or a partition of the table of another, at any level (catalog/pg_inherits.h), which pgrx has not.
    fn typeInheritsFrom(below: pg_sys::Oid, above: pg_sys::Oid) -> bool;
}

/// The type of the rows of a table.
pub fn row_type_of(table: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a look into PostgreSQL's cache of tables.
    unsafe { pg_sys::get_rel_type_id(table) }
}

/// Whether the rows of a type are those of a table, or of a child or a partition of it.
pub fn is_row_of(row_type: pg_sys::Oid, table: pg_sys::Oid) -> bool {
    let whole = row_type_of(table);
    // SAFETY: reads catalogs; false for what is no row type.
    row_type == whole || unsafe { typeInheritsFrom(row_type, whole) }
}
