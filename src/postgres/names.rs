//! What statements on a table name. They are texts, and PostgreSQL looks their names up each time that it analyses one. By then
//! whoever owns a schema can have put another object under a name that was checked, which would run as the table's owner.

use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{PgList, PgRelation};

use crate::postgres::retold::REPLACED;
use crate::postgres::sqlstate::is_of_listening;

/// An object of a catalog: the catalog, and its oid.
pub type Object = (pg_sys::Oid, pg_sys::Oid);

/// What the statements of the innermost `naming` may name.
#[derive(Clone)]
struct Expected {
    objects: Vec<Object>,
    /// Whether only its first statement is its own.
    is_of_one: bool,
    /// The innermost error callback when it began. The statements themselves have one more, which is SPI's; those of code that they call
    /// have more than one.
    stack: *mut pg_sys::ErrorContextCallback,
}

thread_local! {
    static EXPECTED: RefCell<Option<Expected>> = const { RefCell::new(None) };
}

/// The hook that was there before.
static NEXT: OnceLock<pg_sys::post_parse_analyze_hook_type> = OnceLock::new();

/// Has PostgreSQL call `analysed` for each statement of this process.
pub fn install() {
    // SAFETY: runs when the library is loaded, before this process has another thread.
    unsafe {
        NEXT.get_or_init(|| pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(analysed);
    }
}

/// Does `work`. Its own statements, unlike those of code that they call, may name these objects, the types of the columns of tables among
/// them, and what PostgreSQL comes with. Errors: 55000, before anything of a statement runs.
pub fn naming<T>(objects: Vec<Object>, work: impl FnOnce() -> T) -> T {
    // SAFETY: only reads where the stack is.
    let stack = unsafe { pg_sys::error_context_stack };
    expecting(Some(Expected { objects, is_of_one: false, stack }), work)
}

/// Does `work`, which has one statement of its own. Those that the statement sets off where it runs, such as the ones on shards that
/// Citus has here, may name anything.
pub fn naming_once<T>(work: impl FnOnce() -> T) -> T {
    let around = EXPECTED.with_borrow(Option::clone);
    expecting(around.map(|around| Expected { is_of_one: true, ..around }), work)
}

/// The same with more objects than those of the `naming` around it.
pub fn naming_also<T>(objects: &[Object], work: impl FnOnce() -> T) -> T {
    let around = EXPECTED.with_borrow(|expected| expected.as_ref().map(|expected| expected.objects.clone()));
    match around {
        Some(around) => naming([&around, objects].concat(), work),
        None => work(),
    }
}

/// Does `work`, whose statements may name anything.
pub fn naming_anything<T>(work: impl FnOnce() -> T) -> T {
    expecting(None, work)
}

fn expecting<T>(expected: Option<Expected>, work: impl FnOnce() -> T) -> T {
    let _around = Restore(EXPECTED.replace(expected));
    work()
}

/// Restores what was expected before, also after an error.
struct Restore(Option<Expected>);

impl Drop for Restore {
    fn drop(&mut self) {
        EXPECTED.set(self.0.take());
    }
}

/// Whether an object is one that PostgreSQL comes with, which only a superuser can replace.
pub fn is_own((_, oid): Object) -> bool {
    oid.to_u32() < pg_sys::FirstNormalObjectId
}

/// An object that has come under a name since what was there was checked.
pub fn replaced((class, oid): Object) -> ErrorReport {
    let address = pg_sys::ObjectAddress { classId: class, objectId: oid, objectSubId: 0 };
    // SAFETY: the address is one of this frame; what is returned is a C string.
    let object =
        unsafe { CStr::from_ptr(pg_sys::getObjectDescription(&address, false)).to_string_lossy().into_owned() };
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{object} has come in the place of what was checked before"),
        REPLACED,
    )
    .set_hint("ROLLBACK")
}

/// # Safety
///
/// Called by the analyser with a statement that it has analysed.
#[pg_guard]
unsafe extern "C-unwind" fn analysed(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    if let Some(Some(next)) = NEXT.get() {
        // SAFETY: the arguments are those of the caller.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| next(state, query, jumble)) };
    }
    let (is_over, wrong) = EXPECTED.with_borrow(|expected| {
        let Some(expected) = expected.as_ref().filter(|expected| is_its_own_statement(expected)) else {
            return (false, None);
        };
        let mut found = Found { expected: &expected.objects, wrong: None };
        // SAFETY: the caller's.
        unsafe { collect(query.cast(), &mut found) };
        (expected.is_of_one, found.wrong)
    });
    if let Some(wrong) = wrong {
        replaced(wrong).report(PgLogLevel::ERROR);
    }
    if is_over {
        EXPECTED.set(None);
    }
}

fn is_its_own_statement(expected: &Expected) -> bool {
    // SAFETY: walks callbacks of frames that have not ended.
    unsafe {
        let (mut callback, mut others) = (pg_sys::error_context_stack, 0);
        while callback != expected.stack {
            let Some(at) = callback.as_ref() else { return false };
            others += usize::from(!is_of_listening(at));
            callback = at.previous;
        }
        others == 1
    }
}

struct Found<'a> {
    expected: &'a [Object],
    /// The first object that is not expected.
    wrong: Option<Object>,
}

impl Found<'_> {
    fn expect(&mut self, object: Object) {
        if self.wrong.is_none() && !is_own(object) && !self.expected.contains(&object) {
            self.wrong = Some(object);
        }
    }

    fn expect_type(&mut self, type_oid: pg_sys::Oid) {
        let object = (pg_sys::TypeRelationId, type_oid);
        if self.wrong.is_none() && !is_own(object) && !self.knows(type_oid) {
            self.wrong = Some(object);
        }
    }

    /// Expects the collation of a column of an expected table, too.
    fn expect_collation(&mut self, collation: pg_sys::Oid) {
        let is_of_a_column = |(class, oid): &Object| {
            *class == pg_sys::RelationRelationId && {
                // SAFETY: the statement has locked the table.
                let table = unsafe { PgRelation::open(*oid) };
                table.tuple_desc().iter().any(|column| column.attcollation == collation)
            }
        };
        let object = (pg_sys::CollationRelationId, collation);
        if self.wrong.is_none() && !is_own(object) && !self.expected.iter().any(is_of_a_column) {
            self.expect(object);
        }
    }

    /// Whether a type, or that of its elements, is expected, or below one that is.
    fn knows(&self, type_oid: pg_sys::Oid) -> bool {
        // SAFETY: look-ups in the system cache.
        let element = unsafe { pg_sys::get_element_type(type_oid) };
        let wanted = if element == pg_sys::InvalidOid { type_oid } else { element };
        self.expected.iter().any(|(class, oid)| match *class {
            pg_sys::TypeRelationId => is_in(wanted, *oid),
            // SAFETY: the statement has locked the table.
            pg_sys::RelationRelationId => unsafe {
                pg_sys::get_rel_type_id(*oid) == wanted
                    || PgRelation::open(*oid).tuple_desc().iter().any(|column| is_in(wanted, column.atttypid))
            },
            _ => false,
        })
    }
}

/// Whether a type is `whole`, or what it is made of: the base type of a domain, the elements of an array.
fn is_in(wanted: pg_sys::Oid, mut whole: pg_sys::Oid) -> bool {
    while whole != wanted {
        // SAFETY: look-ups in the system cache.
        let below = unsafe {
            if pg_sys::get_typtype(whole) == 0 {
                return false;
            }
            let base = pg_sys::getBaseType(whole);
            if base == whole { pg_sys::get_element_type(whole) } else { base }
        };
        if below == pg_sys::InvalidOid {
            return false;
        }
        whole = below;
    }
    true
}

/// Collects what is found by name. A cast is found by its types, and what sorts and groups by the type of the column.
///
/// # Safety
///
/// `node` is part of an analysed statement, or null.
unsafe fn collect(node: *mut pg_sys::Node, found: &mut Found) -> bool {
    use pg_sys::CoercionForm::{COERCE_EXPLICIT_CAST, COERCE_IMPLICIT_CAST};
    use pg_sys::NodeTag::*;
    // SAFETY: the caller's; the tag says what the node is.
    unsafe {
        let Some(tag) = node.as_ref().map(|node| node.type_) else { return false };
        match tag {
            T_Query => {
                let query = node.cast::<pg_sys::Query>();
                let utility = (*query).utilityStmt;
                return match utility.as_ref().map(|utility| utility.type_) {
                    Some(T_ExplainStmt) => collect((*utility.cast::<pg_sys::ExplainStmt>()).query, found),
                    _ => pg_sys::query_tree_walker(
                        query,
                        Some(visit),
                        (&raw mut *found).cast(),
                        pg_sys::QTW_EXAMINE_RTES_BEFORE as i32,
                    ),
                };
            }
            T_RangeTblEntry => {
                found.expect((pg_sys::RelationRelationId, (*node.cast::<pg_sys::RangeTblEntry>()).relid));
                return false;
            }
            T_FuncExpr => {
                let call = &*node.cast::<pg_sys::FuncExpr>();
                if !matches!(call.funcformat, COERCE_EXPLICIT_CAST | COERCE_IMPLICIT_CAST) {
                    found.expect((pg_sys::ProcedureRelationId, call.funcid));
                }
            }
            T_CollateExpr => found.expect_collation((*node.cast::<pg_sys::CollateExpr>()).collOid),
            T_Aggref => found.expect((pg_sys::ProcedureRelationId, (*node.cast::<pg_sys::Aggref>()).aggfnoid)),
            T_WindowFunc => found.expect((pg_sys::ProcedureRelationId, (*node.cast::<pg_sys::WindowFunc>()).winfnoid)),
            T_OpExpr | T_DistinctExpr | T_NullIfExpr => {
                found.expect((pg_sys::OperatorRelationId, (*node.cast::<pg_sys::OpExpr>()).opno));
            }
            T_ScalarArrayOpExpr => {
                found.expect((pg_sys::OperatorRelationId, (*node.cast::<pg_sys::ScalarArrayOpExpr>()).opno));
            }
            T_RowCompareExpr => {
                let operators = PgList::<pg_sys::Oid>::from_pg((*node.cast::<pg_sys::RowCompareExpr>()).opnos);
                operators.iter_oid().for_each(|operator| found.expect((pg_sys::OperatorRelationId, operator)));
            }
            _ => {}
        }
        if matches!(
            tag,
            T_Const
                | T_FuncExpr
                | T_RelabelType
                | T_CoerceViaIO
                | T_ArrayCoerceExpr
                | T_CoerceToDomain
                | T_ConvertRowtypeExpr
                | T_ArrayExpr
                | T_RowExpr
        ) {
            found.expect_type(pg_sys::exprType(node));
        }
        pg_sys::expression_tree_walker(node, Some(visit), (&raw mut *found).cast())
    }
}

/// # Safety
///
/// Called by the walker with a node, and with the `Found` that it was given.
#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, found: *mut c_void) -> bool {
    // SAFETY: the caller's.
    unsafe { collect(node, &mut *found.cast()) }
}
