//! What a statement does to those around it in the same text, by PostgreSQL's own grammar.

use std::ffi::CStr;

use pgrx::PgList;
use pgrx::prelude::*;

use crate::postgres::value::{Value, strings, text, value};

pub enum Step {
    /// Executes what it calls.
    Run,
    /// Executes nothing of it; why.
    Never(&'static str),
    /// Keeps what it calls under a name, as PREPARE and DECLARE do.
    Keep(String),
    /// Executes what is kept under a name.
    Use(String),
    Begin(Vec<Setting>),
    Commit {
        chains: bool,
    },
    Rollback {
        chains: bool,
    },
    Savepoint(String),
    RollbackTo(String),
    Set(Vec<Setting>),
    /// Fails beside other statements, with which it would be one transaction.
    Alone(&'static str),
}

#[derive(Clone)]
pub struct Setting {
    /// `None` for all of them.
    pub name: Option<String>,
    /// `None` if it gets those back that it had.
    pub values: Option<Vec<Value>>,
    pub is_local: bool,
}

/// # Safety
///
/// `node` is a statement of the raw parser.
pub unsafe fn step(node: *mut pg_sys::Node) -> Step {
    use pg_sys::NodeTag::*;
    // SAFETY: the tags say what the nodes are.
    unsafe {
        match (*node).type_ {
            T_SelectStmt if is_idle(node.cast()) => Step::Never("is never reached, by its WHERE or LIMIT"),
            T_CreateTableAsStmt if (*(*node.cast::<pg_sys::CreateTableAsStmt>()).into).skipData => {
                Step::Never("stands in a statement WITH NO DATA, which executes nothing")
            }
            T_CreateTableAsStmt if (*node.cast::<pg_sys::CreateTableAsStmt>()).if_not_exists => {
                Step::Never("stands in a statement IF NOT EXISTS, which executes nothing the next time")
            }
            T_ExplainStmt if !is_analyzed(node.cast()) => {
                Step::Never("stands in an EXPLAIN without ANALYZE, which executes nothing")
            }
            T_CreateTableAsStmt | T_ExplainStmt => step(inner(node)),
            T_PrepareStmt => Step::Keep(text((*node.cast::<pg_sys::PrepareStmt>()).name)),
            T_ExecuteStmt => Step::Use(text((*node.cast::<pg_sys::ExecuteStmt>()).name)),
            T_DeclareCursorStmt => {
                let cursor = &*node.cast::<pg_sys::DeclareCursorStmt>();
                // One that is held is executed when the transaction commits, at the latest.
                let is_held = cursor.options & pg_sys::CURSOR_OPT_HOLD as i32 != 0;
                if is_held { Step::Run } else { Step::Keep(text(cursor.portalname)) }
            }
            T_FetchStmt => Step::Use(text((*node.cast::<pg_sys::FetchStmt>()).portalname)),
            T_TransactionStmt => transaction(&*node.cast::<pg_sys::TransactionStmt>()),
            T_VariableSetStmt => Step::Set(settings(&*node.cast::<pg_sys::VariableSetStmt>())),
            T_VacuumStmt if (*node.cast::<pg_sys::VacuumStmt>()).is_vacuumcmd => Step::Alone("VACUUM"),
            T_IndexStmt if (*node.cast::<pg_sys::IndexStmt>()).concurrent => Step::Alone("CREATE INDEX CONCURRENTLY"),
            T_DropStmt if (*node.cast::<pg_sys::DropStmt>()).concurrent => Step::Alone("DROP INDEX CONCURRENTLY"),
            T_ReindexStmt if is_concurrent(node.cast()) => Step::Alone("REINDEX CONCURRENTLY"),
            T_AlterSystemStmt => Step::Alone("ALTER SYSTEM"),
            T_CreatedbStmt => Step::Alone("CREATE DATABASE"),
            T_DropdbStmt => Step::Alone("DROP DATABASE"),
            _ => Step::Run,
        }
    }
}

/// # Safety
///
/// `node` is a REINDEX of the raw parser.
unsafe fn is_concurrent(node: *mut pg_sys::ReindexStmt) -> bool {
    // SAFETY: the caller's.
    let options = unsafe { PgList::<pg_sys::DefElem>::from_pg((*node).params) };
    // SAFETY: each has a name.
    options.iter_ptr().any(|option| unsafe { CStr::from_ptr((*option).defname) } == c"concurrently")
}

/// The statement that a statement is around; null if there is none.
///
/// # Safety
///
/// `node` is a statement of the raw parser.
pub unsafe fn inner(node: *mut pg_sys::Node) -> *mut pg_sys::Node {
    use pg_sys::NodeTag::*;
    // SAFETY: the tags say what the nodes are.
    unsafe {
        match (*node).type_ {
            T_PrepareStmt => (*node.cast::<pg_sys::PrepareStmt>()).query,
            T_CreateTableAsStmt => (*node.cast::<pg_sys::CreateTableAsStmt>()).query,
            T_CopyStmt => (*node.cast::<pg_sys::CopyStmt>()).query,
            T_ExplainStmt => (*node.cast::<pg_sys::ExplainStmt>()).query,
            T_DeclareCursorStmt => (*node.cast::<pg_sys::DeclareCursorStmt>()).query,
            _ => std::ptr::null_mut(),
        }
    }
}

/// The table that a statement makes of what it selects, and whether it is there the next time.
///
/// # Safety
///
/// `node` is a statement of the raw parser.
pub unsafe fn made(node: *mut pg_sys::Node) -> Option<(String, bool)> {
    use pg_sys::NodeTag::*;
    // SAFETY: the tags say what the nodes are.
    unsafe {
        let into = match (*node).type_ {
            T_SelectStmt => (*node.cast::<pg_sys::SelectStmt>()).intoClause,
            T_CreateTableAsStmt if !(*node.cast::<pg_sys::CreateTableAsStmt>()).if_not_exists => {
                (*node.cast::<pg_sys::CreateTableAsStmt>()).into
            }
            _ => return None,
        };
        let table = (!into.is_null()).then(|| &*(*into).rel)?;
        Some((text(table.relname), table.relpersistence as u8 != pg_sys::RELPERSISTENCE_TEMP))
    }
}

/// The tables and views that a statement drops.
///
/// # Safety
///
/// `node` is a statement of the raw parser.
pub unsafe fn dropped(node: *mut pg_sys::Node) -> Vec<String> {
    use pg_sys::ObjectType::*;
    // SAFETY: the tag says what the node is; the name of a table is a list of strings.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_DropStmt {
            return Vec::new();
        }
        let drop = &*node.cast::<pg_sys::DropStmt>();
        if ![OBJECT_TABLE, OBJECT_MATVIEW].contains(&drop.removeType) {
            return Vec::new();
        }
        let objects = PgList::<pg_sys::List>::from_pg(drop.objects);
        objects.iter_ptr().filter_map(|names| strings(names).pop()).collect()
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
/// `explain` is an EXPLAIN of the raw parser.
unsafe fn is_analyzed(explain: *mut pg_sys::ExplainStmt) -> bool {
    // SAFETY: the caller's. What is no boolean raises an ERROR, as in the statement itself.
    unsafe {
        let options = PgList::<pg_sys::DefElem>::from_pg((*explain).options);
        let analyze = options.iter_ptr().filter(|option| CStr::from_ptr((**option).defname) == c"analyze").last();
        analyze.is_some_and(|analyze| pg_sys::defGetBoolean(analyze))
    }
}

/// # Safety
///
/// `transaction` is a statement of the raw parser.
unsafe fn transaction(transaction: &pg_sys::TransactionStmt) -> Step {
    use pg_sys::TransactionStmtKind::*;
    // SAFETY: the caller's.
    unsafe {
        match transaction.kind {
            TRANS_STMT_BEGIN | TRANS_STMT_START => Step::Begin(modes(c"TRANSACTION", transaction.options)),
            TRANS_STMT_COMMIT => Step::Commit { chains: transaction.chain },
            // One that is prepared waits for somebody who commits it.
            TRANS_STMT_ROLLBACK | TRANS_STMT_PREPARE => Step::Rollback { chains: transaction.chain },
            TRANS_STMT_SAVEPOINT => Step::Savepoint(text(transaction.savepoint_name)),
            TRANS_STMT_ROLLBACK_TO => Step::RollbackTo(text(transaction.savepoint_name)),
            _ => Step::Run,
        }
    }
}

/// # Safety
///
/// `set` is a statement of the raw parser.
unsafe fn settings(set: &pg_sys::VariableSetStmt) -> Vec<Setting> {
    use pg_sys::VariableSetKind::*;
    // SAFETY: the caller's.
    unsafe {
        let values = || PgList::<pg_sys::Node>::from_pg(set.args).iter_ptr().map(|node| value(node)).collect();
        if set.kind == VAR_SET_MULTI {
            return modes(CStr::from_ptr(set.name), set.args);
        }
        let name = (!set.name.is_null()).then(|| text(set.name).to_ascii_lowercase());
        vec![Setting { name, values: (set.kind == VAR_SET_VALUE).then(values), is_local: set.is_local }]
    }
}

/// Whether a transaction, or each of the session, is read-only, if its modes say so.
///
/// # Safety
///
/// `options` are those of a transaction, of the raw parser.
unsafe fn modes(of: &CStr, options: *mut pg_sys::List) -> Vec<Setting> {
    let name = if of == c"TRANSACTION" { "transaction_read_only" } else { "default_transaction_read_only" };
    // SAFETY: the caller's.
    unsafe {
        let options = PgList::<pg_sys::DefElem>::from_pg(options);
        let read_only =
            options.iter_ptr().filter(|option| CStr::from_ptr((**option).defname) == c"transaction_read_only");
        let setting = |option: *mut pg_sys::DefElem| {
            let is_read_only = value((*option).arg) == Value::Number(1);
            Setting { name: Some(name.into()), values: Some(vec![Value::Bool(is_read_only)]), is_local: false }
        };
        read_only.map(setting).collect()
    }
}
