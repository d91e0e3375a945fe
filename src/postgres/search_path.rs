use std::ffi::{CStr, CString};
use std::ptr::null_mut;

use pgrx::PgList;
use pgrx::prelude::*;

/// A search path that looks into the session's temporary schema last, where anybody who has the session can put a type or a
/// function. PostgreSQL looks there first if a path does not say so. `None` if the path itself says first, or is no list of
/// names.
pub fn with_temporary_last(search_path: &str) -> Option<String> {
    let names = names(search_path)?;
    // A session's own temporary schema has a number, too.
    let is_temporary = |name: &String| name == "pg_temp" || name.starts_with("pg_temp_");
    let (last, others) = names.split_last()?;
    if others.iter().any(is_temporary) || last.starts_with("pg_temp_") {
        return None;
    }
    Some(if last == "pg_temp" { search_path.to_owned() } else { format!("{search_path}, pg_temp") })
}

/// The schemas of a search path; `None` if it is no list of names.
pub fn names(list: &str) -> Option<Vec<String>> {
    let list = CString::new(list).ok()?;
    let mut names = null_mut();
    // SAFETY: the copy, which is written to, lives as long as the names, which point into it.
    unsafe {
        let copy = pg_sys::pstrdup(list.as_ptr());
        pg_sys::SplitIdentifierString(copy, b',' as core::ffi::c_char, &mut names).then(|| {
            let names = PgList::<core::ffi::c_char>::from_pg(names);
            names.iter_ptr().map(|name| CStr::from_ptr(name).to_string_lossy().into_owned()).collect()
        })
    }
}
