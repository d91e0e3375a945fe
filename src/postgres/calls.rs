//! What an analysed expression calls, and what of it can mean something else to the next reader.

use std::ffi::{CStr, c_char, c_void};

use pgrx::PgList;
use pgrx::prelude::*;

use crate::postgres::names::{Object, is_own};
use crate::postgres::parse::start;

/// What an analysed expression calls.
#[derive(Default)]
pub struct Found {
    pub objects: Vec<Object>,
    /// Whether it has an operator that can be written by its bare name only, and that another search path may find elsewhere.
    pub is_loose: bool,
    /// A function or an operator that is not PostgreSQL's own, with polymorphic or default arguments: the next reader of the expression
    /// may find another one by the same name, which takes the types exactly.
    pub replaceable: Option<String>,
    /// Whether it calls something on values of different collations.
    pub is_mixed: bool,
    /// A constant that names an object which PostgreSQL does not come with.
    pub misread: Option<String>,
}

/// # Safety
///
/// `node` is an analysed expression.
pub unsafe fn found_in(node: *mut pg_sys::Node) -> Found {
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
pub unsafe fn is_collatable(node: *mut pg_sys::Node) -> bool {
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
