//! What statements call, by PostgreSQL's own grammar. Nothing is looked up in a catalog, and nothing runs.

use std::ffi::{CStr, CString, c_void};
use std::ops::Range;

use pgrx::PgList;
use pgrx::prelude::*;

use crate::postgres::memory::in_own_memory;
use crate::postgres::step::{Step, dropped, inner, made, step};
use crate::postgres::value::{Literal, Value, literal, string, strings, text, value};

/// A statement of a text of SQL.
pub struct Statement {
    pub kind: pg_sys::NodeTag,
    /// The functions and procedures that it calls: as SELECT, INSERT, UPDATE, DELETE, MERGE or CALL, or as a statement around one.
    pub calls: Vec<Call>,
    /// The body of a DO.
    pub block: Option<String>,
    /// The tables that it names, with their schemas, and what WITH calls so.
    pub tables: Vec<(Option<String>, String)>,
    pub with: Vec<String>,
    pub step: Step,
    /// The table that it makes and that is there the next time, and those that it drops.
    pub makes: Option<String>,
    pub drops: Vec<String>,
    /// The calls of its SELECTs in WITH, by their places, until it is read.
    in_with: Vec<(String, Range<usize>)>,
}

/// A function call as it is written.
pub struct Call {
    pub schema: Option<String>,
    pub function: String,
    arguments: Vec<Argument>,
    /// Whether it stands in a SELECT of WITH that nothing reads, which PostgreSQL does not run.
    pub is_unread: bool,
}

struct Argument {
    name: Option<String>,
    value: Value,
    literal: Option<Literal>,
}

impl Call {
    pub fn has_at_most(&self, arguments: usize) -> bool {
        self.arguments.len() <= arguments
    }

    /// The first argument that none of these names, in their order, is for: by its name, or by its number.
    pub fn unknown(&self, names: &[&str]) -> Option<String> {
        let beyond = self.arguments.iter().filter(|argument| argument.name.is_none()).count() > names.len();
        let named = self.arguments.iter().filter_map(|argument| argument.name.as_deref());
        let unknown = named.filter(|name| !names.contains(name)).map(|name| format!("\"{name}\"")).next();
        unknown.or(beyond.then(|| format!("{}", names.len() + 1)))
    }

    /// The argument of this name, or at this place in a call without names; `None` if the call leaves it to its default.
    pub fn argument(&self, place: usize, name: &str) -> Option<&Value> {
        self.find(place, name).map(|argument| &argument.value)
    }

    /// The type that this argument has as it is written.
    pub fn literal(&self, place: usize, name: &str) -> Option<Literal> {
        self.find(place, name)?.literal
    }

    fn find(&self, place: usize, name: &str) -> Option<&Argument> {
        let is_named = |argument: &&Argument| argument.name.as_deref() == Some(name);
        let positional = || self.arguments.get(place).filter(|argument| argument.name.is_none());
        self.arguments.iter().find(is_named).or_else(positional)
    }
}

/// Parses statements; `None` if they are no SQL.
pub fn parse(sql: &str) -> Option<Vec<Statement>> {
    let sql = CString::new(sql).ok()?;
    // The parser raises an ERROR for what is no SQL.
    in_own_memory(|| {
        // SAFETY: the text outlives the parser, whose trees are in the current memory context.
        unsafe {
            let trees = pg_sys::raw_parser(sql.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
            Some(PgList::<pg_sys::RawStmt>::from_pg(trees).iter_ptr().map(|tree| statement((*tree).stmt)).collect())
        }
    })
}

/// # Safety
///
/// `node` is a statement of the raw parser.
unsafe fn statement(node: *mut pg_sys::Node) -> Statement {
    // SAFETY: the caller's.
    unsafe {
        let mut found = Statement {
            kind: (*node).type_,
            calls: Vec::new(),
            block: None,
            tables: Vec::new(),
            with: Vec::new(),
            step: step(node),
            makes: made(node).filter(|(_, stays)| *stays).map(|(name, _)| name),
            drops: dropped(node),
            in_with: Vec::new(),
        };
        look_into(node, &mut found);
        for (name, calls) in std::mem::take(&mut found.in_with) {
            let is_read = found.tables.iter().any(|(_, table)| *table == name);
            found.calls[calls].iter_mut().for_each(|call| call.is_unread |= !is_read);
        }
        found
    }
}

/// # Safety
///
/// `node` is a statement of the raw parser.
unsafe fn look_into(node: *mut pg_sys::Node, found: &mut Statement) {
    use pg_sys::NodeTag::*;
    // SAFETY: the tag says what the node is. The walker knows these kinds of statements, and no other.
    unsafe {
        match (*node).type_ {
            T_SelectStmt | T_InsertStmt | T_UpdateStmt | T_DeleteStmt | T_MergeStmt => {
                start(visit, node, (&raw mut *found).cast());
                // What it makes need not be there.
                let made = made(node);
                found.tables.retain(|(_, name)| made.as_ref().is_none_or(|(made, _)| made != name));
            }
            T_CallStmt => {
                let call = (*node.cast::<pg_sys::CallStmt>()).funccall;
                start(visit, call.cast(), (&raw mut *found).cast());
            }
            T_DoStmt => {
                let options = PgList::<pg_sys::DefElem>::from_pg((*node.cast::<pg_sys::DoStmt>()).args);
                let body = options.iter_ptr().find(|option| CStr::from_ptr((**option).defname) == c"as");
                found.block = body.map(|body| string((*body).arg));
            }
            _ => {
                let inner = inner(node);
                if !inner.is_null() {
                    look_into(inner, found);
                }
            }
        }
    }
}

/// # Safety
///
/// Called by the walker with a node, and with the `Statement` that it was given.
#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, found: *mut c_void) -> bool {
    // SAFETY: the caller's; the tag says what the node is.
    unsafe {
        if node.is_null() {
            return false;
        }
        let statement = &mut *found.cast::<Statement>();
        match (*node).type_ {
            pg_sys::NodeTag::T_FuncCall => statement.calls.extend(call(node.cast())),
            pg_sys::NodeTag::T_RangeVar => {
                let table = &*node.cast::<pg_sys::RangeVar>();
                let schema = (!table.schemaname.is_null()).then(|| text(table.schemaname));
                statement.tables.push((schema, text(table.relname)));
            }
            pg_sys::NodeTag::T_CommonTableExpr => {
                let with = &*node.cast::<pg_sys::CommonTableExpr>();
                let (name, first) = (text(with.ctename), statement.calls.len());
                statement.with.push(name.clone());
                let is_over = walk(node, Some(visit), found);
                let statement = &mut *found.cast::<Statement>();
                if (*with.ctequery).type_ == pg_sys::NodeTag::T_SelectStmt {
                    statement.in_with.push((name, first..statement.calls.len()));
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
unsafe fn argument(node: *mut pg_sys::Node) -> Argument {
    // SAFETY: the tags say what the nodes are.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_NamedArgExpr {
            return Argument { name: None, value: value(node), literal: literal(node) };
        }
        let named = node.cast::<pg_sys::NamedArgExpr>();
        let of_name = (*named).arg.cast();
        Argument { name: Some(text((*named).name)), value: value(of_name), literal: literal(of_name) }
    }
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
