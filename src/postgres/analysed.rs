//! An expression on a table, analysed as one of an index is, without the code of what its strings are read by.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::postgres::calls::found_in;
use crate::postgres::error::{Result, error};
use crate::postgres::names::{Object, is_own, replaced};
use crate::postgres::parse::start;
use crate::postgres::qualify::{expression, qualified, without_strings};
use crate::postgres::settings::{set_local, with_settings};

/// Whether a value of a type is read without code of a domain: as those of a number, a text, an enum, or a domain over one, whose
/// CHECKs the parser leaves to the executor. Elements of arrays, rows and ranges are read at once, as whoever types them.
pub fn is_scalar(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in the system cache.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        matches!(pg_sys::get_typtype(base) as u8, b'b' | b'e') && pg_sys::get_element_type(base) == pg_sys::InvalidOid
    }
}

/// Whether a text may be read as an array, a row or a range that is not empty.
pub fn has_elements(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[', '('])
}

pub fn refused(sqlstate: PgSqlErrorCode, wrong: &str) -> ErrorReport {
    error(sqlstate, wrong.to_owned(), "SELECT * FROM backlog_cleanup.target".into())
}

/// An analysed expression whose strings are not yet read: to read one runs its type's input function, which can be that of another type by
/// the time that its name is looked up.
pub struct Analysed {
    /// A constant that is NULL is in the place of each string, with `place` as its location.
    pub node: *mut pg_sys::Node,
    strings: Vec<*mut c_char>,
}

/// The location of the constant of a string that was taken out as this parameter: none that the parser gives.
fn place(parameter: c_int) -> c_int {
    parameter - 1
}

impl Analysed {
    /// Its columns are those of a table, or of its `alias`.
    ///
    /// # Safety
    ///
    /// The table is locked, and stays so until its reader ends.
    pub unsafe fn of(text: &str, table: pg_sys::Oid, alias: Option<&CStr>) -> Result<Analysed> {
        let raw = expression(text)?;
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: the caller's. The tree is in the current memory context; the text outlives the parse state.
        unsafe {
            let strings = without_strings(raw);
            let relation = pg_sys::relation_open(table, pg_sys::AccessShareLock as i32);
            let state = pg_sys::make_parsestate(std::ptr::null_mut());
            (*state).p_sourcetext = text.as_ptr();
            (*state).p_paramref_hook = Some(unread);
            let alias =
                alias.map_or(std::ptr::null_mut(), |alias| pg_sys::makeAlias(alias.as_ptr(), std::ptr::null_mut()));
            let item = pg_sys::addRangeTableEntryForRelation(
                state,
                relation,
                pg_sys::AccessShareLock as i32,
                alias,
                false,
                true,
            );
            pg_sys::addNSItemToQuery(state, item, false, true, true);
            let node = pg_sys::transformExpr(state, raw, pg_sys::ParseExprKind::EXPR_KIND_INDEX_EXPRESSION);
            pg_sys::assign_expr_collations(state, node);
            pg_sys::relation_close(relation, pg_sys::NoLock as i32);
            Ok(Analysed { node, strings })
        }
    }

    /// The expression with its strings, read by its types if it calls nothing but PostgreSQL's own and these objects. Errors: 0A000, 55000,
    /// those of the types.
    ///
    /// # Safety
    ///
    /// Its tree is in the current memory context.
    pub unsafe fn with_strings(mut self, called: &[Object]) -> Result<*mut pg_sys::Node> {
        // SAFETY: the caller's.
        unsafe {
            let objects = found_in(self.node).objects;
            if let Some(other) = objects.iter().find(|object| !is_own(**object) && !called.contains(object)) {
                return Err(replaced(*other));
            }
            let mut reading = Reading { strings: std::mem::take(&mut self.strings), refused: None };
            start(read, self.node, (&raw mut reading).cast());
            match reading.refused {
                Some(wrong) => Err(refused(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, &wrong)),
                None => Ok(self.node),
            }
        }
    }
}

/// # Safety
///
/// Called by the analyser with a parameter.
#[pg_guard]
unsafe extern "C-unwind" fn unread(
    _state: *mut pg_sys::ParseState,
    parameter: *mut pg_sys::ParamRef,
) -> *mut pg_sys::Node {
    // SAFETY: the caller's. What a string is before its type is known, but NULL.
    unsafe {
        let number = (*parameter).number;
        if number >= 0 {
            return std::ptr::null_mut();
        }
        let (none, value) = (pg_sys::InvalidOid, pg_sys::Datum::null());
        let constant = pg_sys::makeConst(pg_sys::UNKNOWNOID, -1, none, -2, value, true, false);
        (*constant).location = place(number);
        constant.cast()
    }
}

/// The strings of an expression that are read, and why one was not.
struct Reading {
    strings: Vec<*mut c_char>,
    refused: Option<String>,
}

/// Reads the strings of an analysed expression, as the analyser does, but for those that are refused.
///
/// # Safety
///
/// Called by the walker with a node, and with the `Reading` that it was given.
#[pg_guard]
unsafe extern "C-unwind" fn read(node: *mut pg_sys::Node, reading: *mut c_void) -> bool {
    // SAFETY: the caller's; the tag says what the node is. The input function is that of the constant's type.
    unsafe {
        if node.is_null() {
            return false;
        }
        if (*node).type_ == pg_sys::NodeTag::T_Const {
            let constant = &mut *node.cast::<pg_sys::Const>();
            let reading = &mut *reading.cast::<Reading>();
            let string = (1..=reading.strings.len()).find(|number| place(-(*number as c_int)) == constant.location);
            if let Some(string) = string.map(|number| reading.strings[number - 1]) {
                reading.refused = has_code(constant.consttype, &CStr::from_ptr(string).to_string_lossy());
                if reading.refused.is_some() {
                    return true;
                }
                let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
                pg_sys::getTypeInputInfo(constant.consttype, &mut input, &mut parameter);
                constant.constvalue = pg_sys::OidInputFunctionCall(input, string, parameter, constant.consttypmod);
                constant.constisnull = false;
            }
        }
        pg_sys::expression_tree_walker(node, Some(read), reading)
    }
}

/// Why a string is not read by a type that PostgreSQL does not come with: the elements of arrays, rows and ranges have code, which would
/// run as whoever has the expression analysed, or would do so if an array, a row or a range came under the name of the type.
fn has_code(type_oid: pg_sys::Oid, text: &str) -> Option<String> {
    // SAFETY: what is returned is a C string.
    let type_name = || unsafe { CStr::from_ptr(pg_sys::format_type_be(type_oid)).to_string_lossy() };
    if is_own((pg_sys::TypeRelationId, type_oid)) {
        return None;
    }
    if !is_scalar(type_oid) {
        return Some(format!("a constant of type {} has elements: write ARRAY[...], ROW(...) or a call", type_name()));
    }
    has_elements(text)
        .then(|| format!("a constant of type {} begins as an array, a row or a range does, and another type may come under that name", type_name()))
}

/// An analysed expression as SQL, its columns those of `g` if `is_prefixed`.
///
/// # Safety
///
/// `node` is an analysed expression on the table.
pub unsafe fn deparsed(node: *mut pg_sys::Node, table: pg_sys::Oid, is_prefixed: bool) -> Result<String> {
    // SAFETY: the caller's; what is returned is a C string.
    let text = unsafe {
        with_settings(|| {
            set_local("search_path", "pg_catalog, pg_temp");
            let context = pg_sys::deparse_context_for(c"g".as_ptr(), table);
            let text: *mut c_char = pg_sys::deparse_expression(node, context, is_prefixed, false);
            CStr::from_ptr(text).to_string_lossy().into_owned()
        })
    };
    qualified(&text)
}

/// The numbers of the columns that an expression reads. Errors: 42P17 (none, a system column, or a whole row).
///
/// # Safety
///
/// `node` is an analysed expression on one table.
pub unsafe fn columns(node: *mut pg_sys::Node) -> Result<Vec<i16>> {
    let mut columns = Vec::new();
    // SAFETY: the caller's; the set is in the current memory context.
    unsafe {
        let mut numbers = std::ptr::null_mut();
        pg_sys::pull_varattnos(node, 1, &mut numbers);
        let mut member: c_int = -1;
        loop {
            member = pg_sys::bms_next_member(numbers, member);
            if member < 0 {
                break;
            }
            columns.push((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16);
        }
    }
    let wrong = match columns.iter().min() {
        None => "it reads no column of the row",
        Some(0) => "it reads the whole row: name columns",
        Some(..0) => "it reads a system column",
        Some(_) => return Ok(columns),
    };
    Err(refused(PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, wrong))
}
