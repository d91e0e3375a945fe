//! Expressions as the catalogs store them, and as people write them: checked by PostgreSQL's own parser and analyser, as those
//! of an index are.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use pgrx::PgList;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::postgres::names::{Object, is_own, replaced};
use crate::postgres::parse::start;
use crate::postgres::qualify::{expression, qualified, without_strings};
use crate::postgres::settings::{set_local, with_settings};

/// Whether an expression, as its `pg_node_tree` is written, calls immutable functions only. Executes nothing.
pub fn is_immutable(tree: &str) -> bool {
    let Ok(tree) = CString::new(tree) else { return false };
    // SAFETY: the text is what PostgreSQL has written into a catalog; the node lives in the current memory context.
    unsafe { !pg_sys::contain_mutable_functions(pg_sys::stringToNode(tree.as_ptr()).cast()) }
}

/// An expression of the columns of a table's row.
#[derive(Clone, PartialEq)]
pub struct Expression {
    /// As SQL in parentheses. Every name in it is qualified, so that no search path changes what it means.
    pub sql: String,
    /// The same of a row that statements call `g`.
    pub of_row: String,
    /// The condition that it has a value for the row, if it has failed for one.
    pub guard: Option<String>,
    pub type_oid: pg_sys::Oid,
    pub collation: pg_sys::Oid,
    /// The numbers of the columns that it reads.
    pub columns: Vec<i16>,
    /// What it calls that PostgreSQL does not come with.
    pub calls: Vec<Object>,
}

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

/// What an expression on a table calls: functions, operators, types. Runs none of it. The search path is the current one. Errors:
/// those of PostgreSQL's parser and analyser, 42601.
pub fn called(text: &str, table: pg_sys::Oid) -> Result<Vec<Object>> {
    // SAFETY: what was analysed.
    as_written(|| unsafe { Ok(found_in(Analysed::of(text, table, None)?.node).objects) })
}

/// Does `work` with an expression. What its text means is not for the session to say.
fn as_written<T>(work: impl FnOnce() -> T) -> T {
    with_settings(|| {
        for (name, value) in [
            ("standard_conforming_strings", "on"),
            ("array_nulls", "on"),
            ("transform_null_equals", "off"),
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, MDY"),
        ] {
            set_local(name, value);
        }
        work()
    })
}

impl Expression {
    /// Reads an expression on a table, by the current search path. Types' input functions and immutable functions of constants
    /// may run, as far as they are among those that `called` has found. Errors: those of PostgreSQL's parser and analyser, 42601, 42P17
    /// (not immutable, or not of the row's columns alone), 0A000 (an operator that only a search path finds, a constant that another type
    /// of its type's name would read by its code), 55000 (it calls others now).
    pub fn read(text: &str, table: pg_sys::Oid, called: &[Object]) -> Result<Expression> {
        as_written(|| {
            // SAFETY: the trees are in the current memory context; the snapshot is for functions, and popped below or by an abort.
            unsafe {
                pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
                let written = Analysed::of(text, table, None)?.with_strings(called)?;
                let of_row = deparsed(written, table, true)?;
                // From here on, what statements will have.
                let node = Analysed::of(&of_row, table, Some(c"g"))?.with_strings(called)?;
                let mut found = found_in(node);
                let mut calls = std::mem::take(&mut found.objects);
                calls.retain(|object| !is_own(*object));
                if found.is_loose || deparsed(node, table, true)? != of_row {
                    return Err(refused(
                        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                        "its operators depend on the search path: write IS DISTINCT FROM, NULLIF and CASE with = of values of one type",
                    ));
                }
                let columns = columns(node)?;
                if pg_sys::contain_mutable_functions(pg_sys::expression_planner(node.cast()).cast()) {
                    return Err(refused(
                        PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION,
                        "functions in it must be marked IMMUTABLE",
                    ));
                }
                if let Some(constant) = found.misread {
                    let wrong = format!("{constant}: another object may come under that name");
                    return Err(refused(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, &wrong));
                }
                if let Some(loose) = found.replaceable {
                    let wrong = format!(
                        "{loose} does not take exactly the types of its arguments: another of its name could take its place"
                    );
                    return Err(refused(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, &wrong));
                }
                let (type_oid, collation) = (pg_sys::exprType(node), pg_sys::exprCollation(node));
                if pg_sys::get_typtype(type_oid) as u8 == b'p' {
                    let type_name = CStr::from_ptr(pg_sys::format_type_be(type_oid)).to_string_lossy();
                    let wrong = format!("it has pseudo-type {type_name}");
                    return Err(refused(PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH, &wrong));
                }
                if found.is_mixed || is_collatable(node) && collation == pg_sys::InvalidOid {
                    return Err(refused(
                        PgSqlErrorCode::ERRCODE_INDETERMINATE_COLLATION,
                        "its columns have different collations: write COLLATE",
                    ));
                }
                let sql = deparsed(node, table, false)?;
                pg_sys::PopActiveSnapshot();
                let (sql, of_row) = (format!("({sql})"), format!("({of_row})"));
                Ok(Expression { sql, of_row, guard: None, type_oid, collation, columns, calls })
            }
        })
    }
}

fn refused(sqlstate: PgSqlErrorCode, wrong: &str) -> ErrorReport {
    error(sqlstate, wrong.to_owned(), "SELECT * FROM backlog_cleanup.target".into())
}

/// An analysed expression whose strings are not yet read: to read one runs its type's input function, which can be that of another type by
/// the time that its name is looked up.
struct Analysed {
    /// A constant that is NULL is in the place of each string, with `place` as its location.
    node: *mut pg_sys::Node,
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
    unsafe fn of(text: &str, table: pg_sys::Oid, alias: Option<&CStr>) -> Result<Analysed> {
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
    unsafe fn with_strings(mut self, called: &[Object]) -> Result<*mut pg_sys::Node> {
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
unsafe fn deparsed(node: *mut pg_sys::Node, table: pg_sys::Oid, is_prefixed: bool) -> Result<String> {
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
unsafe fn columns(node: *mut pg_sys::Node) -> Result<Vec<i16>> {
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

/// What an analysed expression calls.
#[derive(Default)]
struct Found {
    objects: Vec<Object>,
    /// Whether it has an operator that can be written by its bare name only, and that another search path may find elsewhere.
    is_loose: bool,
    /// A function or an operator that is not PostgreSQL's own, with polymorphic or default arguments: the next reader of the expression
    /// may find another one by the same name, which takes the types exactly.
    replaceable: Option<String>,
    /// Whether it calls something on values of different collations.
    is_mixed: bool,
    /// A constant that names an object which PostgreSQL does not come with.
    misread: Option<String>,
}

/// # Safety
///
/// `node` is an analysed expression.
unsafe fn found_in(node: *mut pg_sys::Node) -> Found {
    let mut found = Found::default();
    // SAFETY: the caller's, and the context that `visit` takes.
    unsafe { start(visit, node, (&raw mut found).cast()) };
    found
}

/// # Safety
///
/// Called by the walker with a node, and with the `Found` that it was given.
#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, found: *mut c_void) -> bool {
    use pg_sys::NodeTag::*;
    // SAFETY: the caller's; the tag says what the node is.
    unsafe {
        if node.is_null() {
            return false;
        }
        let to = &mut *found.cast::<Found>();
        pg_sys::check_functions_in_node(node, Some(function), found);
        // These have no type.
        if !matches!((*node).type_, T_List | T_CaseWhen) {
            to.objects.push((pg_sys::TypeRelationId, pg_sys::exprType(node)));
        }
        let operands = match (*node).type_ {
            T_FuncExpr => (*node.cast::<pg_sys::FuncExpr>()).args,
            T_OpExpr | T_DistinctExpr | T_NullIfExpr => (*node.cast::<pg_sys::OpExpr>()).args,
            T_ScalarArrayOpExpr => (*node.cast::<pg_sys::ScalarArrayOpExpr>()).args,
            _ => std::ptr::null_mut(),
        };
        to.is_mixed |= pg_sys::exprInputCollation(node) == pg_sys::InvalidOid
            && PgList::<pg_sys::Node>::from_pg(operands).iter_ptr().any(|operand| is_collatable(operand));
        match (*node).type_ {
            T_Const => {
                let constant = &*node.cast::<pg_sys::Const>();
                to.misread = to.misread.take().or_else(|| misread(constant));
            }
            T_CollateExpr => {
                to.objects.push((pg_sys::CollationRelationId, (*node.cast::<pg_sys::CollateExpr>()).collOid));
            }
            T_OpExpr => to.objects.push((pg_sys::OperatorRelationId, (*node.cast::<pg_sys::OpExpr>()).opno)),
            T_DistinctExpr | T_NullIfExpr => {
                let call = &*node.cast::<pg_sys::OpExpr>();
                to.objects.push((pg_sys::OperatorRelationId, call.opno));
                to.is_loose |= !is_fixed(call);
            }
            T_ScalarArrayOpExpr => {
                to.objects.push((pg_sys::OperatorRelationId, (*node.cast::<pg_sys::ScalarArrayOpExpr>()).opno));
            }
            T_CaseExpr if !(*node.cast::<pg_sys::CaseExpr>()).arg.is_null() => {
                let whens = PgList::<pg_sys::CaseWhen>::from_pg((*node.cast::<pg_sys::CaseExpr>()).args);
                to.is_loose |= whens.iter_ptr().any(|when| {
                    let call = (*when).expr.cast::<pg_sys::OpExpr>();
                    let is_cast = || {
                        let left = PgList::<pg_sys::Node>::from_pg((*call).args).get_ptr(0);
                        left.is_none_or(|left| (*left).type_ != T_CaseTestExpr)
                    };
                    (*call).xpr.type_ != T_OpExpr || is_cast() || !is_fixed(&*call)
                });
            }
            _ => {}
        }
        if to.replaceable.is_none() {
            to.replaceable = replaceable(node);
        }
        pg_sys::expression_tree_walker(node, Some(visit), found)
    }
}

/// What is wrong with a constant that names an object which PostgreSQL does not come with, such as a text search configuration.
///
/// # Safety
///
/// `constant` is part of an analysed expression.
unsafe fn misread(constant: &pg_sys::Const) -> Option<String> {
    use pg_sys::*;
    const NAMES: [Oid; 11] = [
        REGCLASSOID,
        REGCOLLATIONOID,
        REGCONFIGOID,
        REGDICTIONARYOID,
        REGNAMESPACEOID,
        REGOPEROID,
        REGOPERATOROID,
        REGPROCOID,
        REGPROCEDUREOID,
        REGROLEOID,
        REGTYPEOID,
    ];
    // SAFETY: the caller's; look-ups in the system cache.
    unsafe {
        if constant.constisnull {
            return None;
        }
        let type_name = || CStr::from_ptr(format_type_be(constant.consttype)).to_string_lossy().into_owned();
        if NAMES.contains(&getBaseType(constant.consttype)) {
            let named = Oid::from(constant.constvalue.value() as u32);
            return (named.to_u32() >= FirstNormalObjectId)
                .then(|| format!("a constant of type {} names an object", type_name()));
        }
        is_made_of(constant.consttype, &NAMES).then(|| format!("a constant of type {} names objects", type_name()))
    }
}

/// Whether a type is one of these or has one in it, as an array, a row or a range has. What has elements is PostgreSQL's own here, and is
/// made of few others.
fn is_made_of(type_oid: pg_sys::Oid, types: &[pg_sys::Oid]) -> bool {
    // SAFETY: look-ups in the system cache.
    let (base, parts, relation) = unsafe {
        let base = pg_sys::getBaseType(type_oid);
        let parts =
            [pg_sys::get_element_type(base), pg_sys::get_multirange_range(base), pg_sys::get_range_subtype(base)];
        (base, parts, pg_sys::get_typ_typrelid(base))
    };
    let columns = || {
        let columns = pgrx::PgTupleDesc::for_composite_type_by_oid(base);
        columns.iter().flat_map(|columns| columns.iter()).map(|column| column.atttypid).collect::<Vec<_>>()
    };
    types.contains(&base)
        || parts.into_iter().any(|part| part != pg_sys::InvalidOid && is_made_of(part, types))
        || relation != pg_sys::InvalidOid && columns().into_iter().any(|column| is_made_of(column, types))
}

/// The function or operator that a node calls by its name, if it is not PostgreSQL's own and does not take exactly these types.
///
/// # Safety
///
/// `node` is an analysed expression.
unsafe fn replaceable(node: *mut pg_sys::Node) -> Option<String> {
    use pg_sys::NodeTag::*;
    // SAFETY: the caller's; the tag says what the node is. The names are C strings, the types an array of so many.
    unsafe {
        let types = |arguments| -> Vec<pg_sys::Oid> {
            let arguments = PgList::<pg_sys::Node>::from_pg(arguments);
            arguments.iter_ptr().map(|argument| pg_sys::exprType(argument)).collect()
        };
        let name = |name: *mut c_char| CStr::from_ptr(name).to_string_lossy().into_owned();
        match (*node).type_ {
            T_FuncExpr => {
                let call = &*node.cast::<pg_sys::FuncExpr>();
                let is_named = call.funcformat == pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
                if !is_named || is_own((pg_sys::ProcedureRelationId, call.funcid)) {
                    return None;
                }
                let (mut taken, mut count) = (std::ptr::null_mut(), 0);
                pg_sys::get_func_signature(call.funcid, &mut taken, &mut count);
                let taken = (0..count as usize).map(|place| *taken.add(place));
                let is_exact = taken.eq(types(call.args));
                (!is_exact).then(|| format!("function {}", name(pg_sys::format_procedure(call.funcid))))
            }
            T_OpExpr | T_DistinctExpr | T_NullIfExpr | T_ScalarArrayOpExpr => {
                let is_array = (*node).type_ == T_ScalarArrayOpExpr;
                let (operator, mut operands) = if is_array {
                    let call = &*node.cast::<pg_sys::ScalarArrayOpExpr>();
                    (call.opno, types(call.args))
                } else {
                    let call = &*node.cast::<pg_sys::OpExpr>();
                    (call.opno, types(call.args))
                };
                if is_own((pg_sys::OperatorRelationId, operator)) {
                    return None;
                }
                if let Some(array) = operands.last_mut().filter(|_| is_array) {
                    *array = pg_sys::get_element_type(*array);
                }
                let (mut left, mut right) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
                pg_sys::op_input_types(operator, &mut left, &mut right);
                let is_exact = operands == [left, right] || left == pg_sys::InvalidOid && operands == [right];
                (!is_exact).then(|| format!("operator {}", name(pg_sys::format_operator(operator))))
            }
            _ => None,
        }
    }
}

/// # Safety
///
/// Called for each function of a node, with a `Found`.
#[pg_guard]
unsafe extern "C-unwind" fn function(function: pg_sys::Oid, found: *mut c_void) -> bool {
    // SAFETY: the caller's.
    unsafe { (*found.cast::<Found>()).objects.push((pg_sys::ProcedureRelationId, function)) };
    false
}

/// Whether the values of an expression have a collation.
///
/// # Safety
///
/// `node` is an analysed expression.
unsafe fn is_collatable(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller's.
    unsafe { pg_sys::get_typcollation(pg_sys::exprType(node)) != pg_sys::InvalidOid }
}

/// Whether the bare name of an operator finds it in every search path that begins with `pg_catalog`, as the current one does: it is
/// PostgreSQL's own, for exactly these types.
///
/// # Safety
///
/// `call` is an analysed call of an operator with two operands.
unsafe fn is_fixed(call: &pg_sys::OpExpr) -> bool {
    // SAFETY: the caller's; a search path is a list of oids.
    unsafe {
        let (mut left, mut right) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::op_input_types(call.opno, &mut left, &mut right);
        let operands: Vec<pg_sys::Oid> =
            PgList::<pg_sys::Node>::from_pg(call.args).iter_ptr().map(|operand| pg_sys::exprType(operand)).collect();
        let path = PgList::<pg_sys::Oid>::from_pg(pg_sys::fetch_search_path(true));
        operands == [left, right]
            && call.opno.to_u32() < pg_sys::FirstNormalObjectId
            && path.get_oid(0) == Some(pg_sys::PG_CATALOG_NAMESPACE.into())
    }
}
