//! Names without a schema, by PostgreSQL's own grammar. Nothing is looked up in a catalog, and nothing runs.

use std::ffi::{CString, c_char, c_void};

use pgrx::PgList;
use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::postgres::parse::{start, walk};
use crate::postgres::value::strings;

/// What stands before an expression and after it, to make a statement of it. A comment of the expression ends with its line.
const AROUND: [&str; 2] = ["SELECT (\n", "\n)"];

/// The tree of an expression that is all there is in a text. The tree is in the current memory context. Errors: 42601.
pub fn expression(text: &str) -> Result<*mut pg_sys::Node> {
    parsed(&statement(text)).ok_or_else(|| {
        let message = format!("\"{text}\" is not one expression");
        error(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, message, "SELECT * FROM backlog_cleanup.target".into())
    })
}

/// Puts `pg_catalog` before each name without a schema in an expression that PostgreSQL has written with that search path. Its
/// memory is the current context's. Errors: 42601.
pub fn qualified(text: &str) -> Result<String> {
    let mut edits: Vec<Edit> = Vec::new();
    let mut statement = statement(text);
    let tree = expression(text)?;
    // SAFETY: a tree of the raw parser, and the context that `visit` takes.
    unsafe { start(visit, tree, (&raw mut edits).cast()) };
    edits.sort_by_key(|edit| std::cmp::Reverse(edit.at));
    for Edit { at, operator, skip } in edits {
        match operator {
            Some(operator) => {
                statement.replace_range(at..at + operator.len(), &format!("OPERATOR(pg_catalog.{operator})"));
            }
            None => statement.insert_str(at + skip, "pg_catalog."),
        }
    }
    let [before, after] = AROUND;
    Ok(statement[before.len()..statement.len() - after.len()].to_owned())
}

/// Takes all strings out of an expression, so that its analysis calls no type's input function. A parameter is in the place of each: number -1
/// for the first one that is returned, -2 for the second.
///
/// # Safety
///
/// `tree` is one of the raw parser.
pub unsafe fn without_strings(tree: *mut pg_sys::Node) -> Vec<*mut c_char> {
    let mut taken: Vec<*mut c_char> = Vec::new();
    // SAFETY: the caller's, and the context that `take` takes.
    unsafe { start(take, tree, (&raw mut taken).cast()) };
    taken
}

fn statement(text: &str) -> String {
    let [before, after] = AROUND;
    format!("{before}{text}{after}")
}

/// What a statement selects, if it is a SELECT of one value and of nothing else.
fn parsed(statement: &str) -> Option<*mut pg_sys::Node> {
    let statement = CString::new(statement).ok()?;
    // SAFETY: the texts outlive the parser, which raises an ERROR for what is no SQL. A SELECT's targets are `ResTarget`s.
    unsafe {
        let parse = |sql: &std::ffi::CStr| {
            let trees = pg_sys::raw_parser(sql.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
            let trees = PgList::<pg_sys::RawStmt>::from_pg(trees);
            trees.get_ptr(0).filter(|_| trees.len() == 1).map(|tree| (*tree).stmt)
        };
        let selected = |select: *mut pg_sys::Node| {
            let is_select = (*select).type_ == pg_sys::NodeTag::T_SelectStmt;
            let targets = is_select.then(|| (*select.cast::<pg_sys::SelectStmt>()).targetList)?;
            PgList::<pg_sys::ResTarget>::from_pg(targets).get_ptr(0)
        };
        let found = parse(&statement)?;
        let (plain, value) = (parse(c"SELECT NULL")?, (*selected(found)?).val);
        (*selected(plain)?).val = value;
        pg_sys::equal(plain.cast(), found.cast()).then_some(value)
    }
}

/// Where a name is written, in bytes.
struct Edit {
    at: usize,
    /// The operator, if it is one's name.
    operator: Option<String>,
    /// What stands before the name.
    skip: usize,
}

/// # Safety
///
/// Called by the walker with a node, and with the edits that it was given.
#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, edits: *mut c_void) -> bool {
    use pg_sys::NodeTag::*;
    // SAFETY: the caller's; the tag says what the node is.
    unsafe {
        if node.is_null() {
            return false;
        }
        let named = match (*node).type_ {
            T_FuncCall => {
                let call = &*node.cast::<pg_sys::FuncCall>();
                Some((call.funcname, call.location, 0))
            }
            T_TypeName => {
                let name = &*node.cast::<pg_sys::TypeName>();
                Some((name.names, name.location, 0))
            }
            T_CollateClause => {
                let collate = &*node.cast::<pg_sys::CollateClause>();
                Some((collate.collname, collate.location, "COLLATE ".len()))
            }
            T_A_Expr => {
                let call = &*node.cast::<pg_sys::A_Expr>();
                use pg_sys::A_Expr_Kind::*;
                matches!(call.kind, AEXPR_OP | AEXPR_OP_ANY | AEXPR_OP_ALL).then_some((call.name, call.location, 0))
            }
            _ => None,
        };
        if let Some((names, location, skip)) = named
            && let [name] = strings(names).as_mut_slice()
            && let Ok(at) = usize::try_from(location)
        {
            let operator = ((*node).type_ == T_A_Expr).then(|| std::mem::take(name));
            (*edits.cast::<Vec<Edit>>()).push(Edit { at, operator, skip });
        }
        walk(node, Some(visit), edits)
    }
}

/// # Safety
///
/// Called by the walker with a node, and with the strings that it was given.
#[pg_guard]
unsafe extern "C-unwind" fn take(node: *mut pg_sys::Node, taken: *mut c_void) -> bool {
    // SAFETY: the caller's; the tags say what the nodes are. A parameter is smaller than a constant.
    unsafe {
        if node.is_null() {
            return false;
        }
        if (*node).type_ == pg_sys::NodeTag::T_A_Const {
            let constant = &*node.cast::<pg_sys::A_Const>();
            if !constant.isnull && constant.val.node.type_ == pg_sys::NodeTag::T_String {
                let taken = &mut *taken.cast::<Vec<*mut c_char>>();
                taken.push(constant.val.sval.sval);
                let (type_, number, location) = (pg_sys::NodeTag::T_ParamRef, -(taken.len() as i32), constant.location);
                node.cast::<pg_sys::ParamRef>().write(pg_sys::ParamRef { type_, number, location });
            }
        }
        walk(node, Some(take), taken)
    }
}
