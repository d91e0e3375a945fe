//! Expressions as the catalogs store them.

use std::ffi::CString;

use pgrx::prelude::*;

/// Whether an expression, as its `pg_node_tree` is written, calls immutable functions only. Executes nothing.
pub fn is_immutable(tree: &str) -> bool {
    let Ok(tree) = CString::new(tree) else { return false };
    // SAFETY: the text is what PostgreSQL has written into a catalog; the node lives in the current memory context.
    unsafe { !pg_sys::contain_mutable_functions(pg_sys::stringToNode(tree.as_ptr()).cast()) }
}
