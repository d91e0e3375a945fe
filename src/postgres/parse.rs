//! What statements call, by PostgreSQL's own grammar. Nothing is looked up in a catalog, and nothing runs.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ops::Range;

use pgrx::PgList;
use pgrx::prelude::*;

use crate::postgres::memory::in_own_memory;

/// What a text of SQL is made of.
#[derive(Default)]
pub struct Statements {
    pub kinds: Vec<pg_sys::NodeTag>,
    /// The functions and procedures that its SELECT, INSERT, UPDATE, DELETE, MERGE and CALL statements call.
    pub calls: Vec<Call>,
    /// The bodies of its DO statements.
    pub blocks: Vec<String>,
    /// Whether it has a ROLLBACK.
    pub rolls_back: bool,
    /// Whether it makes its transaction read-only.
    pub is_read_only: bool,
    /// Whether a SELECT of it returns no row, by its WHERE or LIMIT alone.
    pub is_idle: bool,
    /// Whether it switches foreign keys' actions off.
    pub is_replica: bool,
    /// The tables that it names, with their schemas, and what WITH calls so.
    pub tables: Vec<(Option<String>, String)>,
    pub with: Vec<String>,
    /// The calls of its SELECTs in WITH, by their places, until its statement is read.
    in_with: Vec<(String, Range<usize>)>,
}

/// A function call as it is written.
pub struct Call {
    pub schema: Option<String>,
    pub function: String,
    arguments: Vec<(Option<String>, Value)>,
    /// Whether it stands in a SELECT of WITH that nothing reads, which PostgreSQL does not run.
    pub is_unread: bool,
}

/// An argument as it is written.
#[derive(Clone, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
    Bool(bool),
    Null,
    /// An expression, whose value only its execution would tell.
    Unknown,
}

impl Call {
    pub fn has_at_most(&self, arguments: usize) -> bool {
        self.arguments.len() <= arguments
    }

    /// The first argument that none of these names, in their order, is for: by its name, or by its number.
    pub fn unknown(&self, names: &[&str]) -> Option<String> {
        let beyond = self.arguments.iter().filter(|(name, _)| name.is_none()).count() > names.len();
        let named = self.arguments.iter().filter_map(|(name, _)| name.as_deref());
        let unknown = named.filter(|name| !names.contains(name)).map(|name| format!("\"{name}\"")).next();
        unknown.or(beyond.then(|| format!("{}", names.len() + 1)))
    }

    /// The argument of this name, or at this place in a call without names; `None` if the call leaves it to its default.
    pub fn argument(&self, place: usize, name: &str) -> Option<&Value> {
        let is_named = |argument: &&(Option<String>, Value)| argument.0.as_deref() == Some(name);
        let positional = || self.arguments.get(place).filter(|(name, _)| name.is_none());
        self.arguments.iter().find(is_named).or_else(positional).map(|(_, value)| value)
    }
}

/// Parses statements; `None` if they are no SQL.
pub fn parse(sql: &str) -> Option<Statements> {
    let sql = CString::new(sql).ok()?;
    // The parser raises an ERROR for what is no SQL.
    in_own_memory(|| {
        let mut found = Statements::default();
        // SAFETY: the text outlives the parser, whose trees are in the current memory context.
        unsafe {
            let trees = pg_sys::raw_parser(sql.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
            for tree in PgList::<pg_sys::RawStmt>::from_pg(trees).iter_ptr() {
                statement((*tree).stmt, &mut found);
            }
        }
        Some(found)
    })
}

/// # Safety
///
/// `node` is a statement of the raw parser.
unsafe fn statement(node: *mut pg_sys::Node, found: &mut Statements) {
    use pg_sys::NodeTag::*;
    // SAFETY: the tag says what the node is. The walker knows these kinds of statements, and no other.
    unsafe {
        found.kinds.push((*node).type_);
        match (*node).type_ {
            T_SelectStmt | T_InsertStmt | T_UpdateStmt | T_DeleteStmt | T_MergeStmt => {
                found.is_idle |= (*node).type_ == T_SelectStmt && is_idle(node.cast());
                let tables = found.tables.len();
                start(visit, node, (&raw mut *found).cast());
                let read: Vec<String> = found.tables[tables..].iter().map(|(_, name)| name.clone()).collect();
                for (name, calls) in std::mem::take(&mut found.in_with) {
                    found.calls[calls].iter_mut().for_each(|call| call.is_unread |= !read.contains(&name));
                }
            }
            T_CallStmt => {
                let call = (*node.cast::<pg_sys::CallStmt>()).funccall;
                start(visit, call.cast(), (&raw mut *found).cast());
            }
            T_TransactionStmt => {
                let transaction = &*node.cast::<pg_sys::TransactionStmt>();
                found.rolls_back |= transaction.kind == pg_sys::TransactionStmtKind::TRANS_STMT_ROLLBACK;
                found.is_read_only |= is_read_only(transaction.options);
            }
            T_VariableSetStmt => {
                let set = &*node.cast::<pg_sys::VariableSetStmt>();
                let is_of = |name| !set.name.is_null() && CStr::from_ptr(set.name) == name;
                found.is_read_only |= is_of(c"TRANSACTION") && is_read_only(set.args);
                let values = PgList::<pg_sys::Node>::from_pg(set.args);
                let is_set_to = |text: &str| values.iter_ptr().any(|node| value(node) == Value::Text(text.into()));
                found.is_replica |= is_of(c"session_replication_role") && is_set_to("replica");
            }
            T_DoStmt => {
                let options = PgList::<pg_sys::DefElem>::from_pg((*node.cast::<pg_sys::DoStmt>()).args);
                let body = options.iter_ptr().find(|option| CStr::from_ptr((**option).defname) == c"as");
                found.blocks.extend(body.map(|body| string((*body).arg)));
            }
            _ => {}
        }
    }
}

/// # Safety
///
/// `select` is a SELECT of the raw parser.
unsafe fn is_idle(select: *mut pg_sys::SelectStmt) -> bool {
    // SAFETY: the caller's.
    let (condition, limit) = unsafe { ((*select).whereClause, (*select).limitCount) };
    // SAFETY: the same.
    let value = |node: *mut pg_sys::Node| if node.is_null() { Value::Unknown } else { unsafe { value(node) } };
    matches!(value(condition), Value::Bool(false) | Value::Null) || value(limit) == Value::Number(0)
}

/// # Safety
///
/// `options` are those of a transaction, of the raw parser.
unsafe fn is_read_only(options: *mut pg_sys::List) -> bool {
    // SAFETY: the caller's.
    unsafe {
        PgList::<pg_sys::DefElem>::from_pg(options).iter_ptr().any(|option| {
            CStr::from_ptr((*option).defname) == c"transaction_read_only" && value((*option).arg) == Value::Number(1)
        })
    }
}

/// # Safety
///
/// Called by the walker with a node, and with the `Statements` that it was given.
#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, found: *mut c_void) -> bool {
    // SAFETY: the caller's; the tag says what the node is.
    unsafe {
        if node.is_null() {
            return false;
        }
        let statements = &mut *found.cast::<Statements>();
        match (*node).type_ {
            pg_sys::NodeTag::T_FuncCall => statements.calls.extend(call(node.cast())),
            pg_sys::NodeTag::T_RangeVar => {
                let table = &*node.cast::<pg_sys::RangeVar>();
                let schema = (!table.schemaname.is_null()).then(|| text(table.schemaname));
                statements.tables.push((schema, text(table.relname)));
            }
            pg_sys::NodeTag::T_CommonTableExpr => {
                let with = &*node.cast::<pg_sys::CommonTableExpr>();
                let (name, first) = (text(with.ctename), statements.calls.len());
                statements.with.push(name.clone());
                let is_over = walk(node, Some(visit), found);
                let statements = &mut *found.cast::<Statements>();
                if (*with.ctequery).type_ == pg_sys::NodeTag::T_SelectStmt {
                    statements.in_with.push((name, first..statements.calls.len()));
                }
                return is_over;
            }
            _ => {}
        }
        walk(node, Some(visit), found)
    }
}

/// # Safety
///
/// `call` is a function call of the raw parser.
unsafe fn call(call: *mut pg_sys::FuncCall) -> Option<Call> {
    // SAFETY: the caller's; a function's name is a list of strings.
    unsafe {
        let mut names = strings((*call).funcname);
        let function = names.pop()?;
        let arguments = PgList::<pg_sys::Node>::from_pg((*call).args).iter_ptr().map(|node| argument(node)).collect();
        Some(Call { schema: names.pop(), function, arguments, is_unread: false })
    }
}

/// # Safety
///
/// `node` is an expression of the raw parser.
unsafe fn argument(node: *mut pg_sys::Node) -> (Option<String>, Value) {
    // SAFETY: the tags say what the nodes are.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_NamedArgExpr {
            return (None, value(node));
        }
        let named = node.cast::<pg_sys::NamedArgExpr>();
        (Some(text((*named).name)), value((*named).arg.cast()))
    }
}

/// # Safety
///
/// As `argument`.
unsafe fn value(node: *mut pg_sys::Node) -> Value {
    use pg_sys::NodeTag::*;
    // SAFETY: the tags say what the nodes are.
    unsafe {
        match (*node).type_ {
            T_TypeCast => value((*node.cast::<pg_sys::TypeCast>()).arg),
            T_A_Const => {
                let constant = &mut *node.cast::<pg_sys::A_Const>();
                match constant.val.node.type_ {
                    _ if constant.isnull => Value::Null,
                    T_String => Value::Text(text(constant.val.sval.sval)),
                    T_Integer => Value::Number(constant.val.ival.ival.into()),
                    T_Boolean => Value::Bool(constant.val.boolval.boolval),
                    _ => Value::Unknown,
                }
            }
            _ => Value::Unknown,
        }
    }
}

/// The names in a list of the raw parser.
///
/// # Safety
///
/// `names` is a list of strings.
pub unsafe fn strings(names: *mut pg_sys::List) -> Vec<String> {
    // SAFETY: the caller's.
    unsafe { PgList::<pg_sys::Node>::from_pg(names).iter_ptr().map(|name| string(name)).collect() }
}

/// # Safety
///
/// `node` is a string of the raw parser.
unsafe fn string(node: *mut pg_sys::Node) -> String {
    // SAFETY: the caller's.
    unsafe { text((*node.cast::<pg_sys::String>()).sval) }
}

/// # Safety
///
/// `name` is a C string.
unsafe fn text(name: *const c_char) -> String {
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// Starts a walk. An ERROR in a callback that Rust calls itself would jump over the frames of whoever catches it.
///
/// # Safety
///
/// As `each` has it.
pub unsafe fn start(
    each: unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool,
    node: *mut pg_sys::Node,
    context: *mut c_void,
) {
    // SAFETY: the caller's.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| each(node, context)) };
}

/// Calls `each` with the nodes below a node, until it returns true.
///
/// # Safety
///
/// `node` is one of the raw parser that the walker knows, and `context` is what `each` takes.
pub unsafe fn walk(
    node: *mut pg_sys::Node,
    each: Option<unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool>,
    context: *mut c_void,
) -> bool {
    #[cfg(not(feature = "pg15"))]
    // SAFETY: the caller's.
    return unsafe { pg_sys::raw_expression_tree_walker_impl(node, each, context) };

    #[cfg(feature = "pg15")]
    {
        type Visit = Option<unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool>;
        unsafe extern "C-unwind" {
            /// nodes/nodeFuncs.h, which pgrx does not bind for PostgreSQL 15.
            fn raw_expression_tree_walker(node: *mut pg_sys::Node, each: Visit, context: *mut c_void) -> bool;
        }
        // SAFETY: the caller's.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| raw_expression_tree_walker(node, each, context)) }
    }
}
