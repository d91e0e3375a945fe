//! Values and names as they are written, in trees of the raw parser.

use std::ffi::{CStr, c_char};

use pgrx::PgList;
use pgrx::prelude::*;

/// A value as it is written.
#[derive(Clone, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
    Bool(bool),
    Null,
    /// An expression, whose value only its execution would tell.
    Unknown,
}

impl Value {
    /// Whether it is false for certain, as PostgreSQL reads a boolean.
    pub fn is_false(&self) -> bool {
        match self {
            Value::Bool(value) => !value,
            Value::Text(text) => {
                let text = text.trim().to_ascii_lowercase();
                text == "0" || !text.is_empty() && ["false", "no", "off"].iter().any(|word| word.starts_with(&text))
            }
            _ => false,
        }
    }
}

/// # Safety
///
/// `node` is an expression of the raw parser.
pub unsafe fn value(node: *mut pg_sys::Node) -> Value {
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

/// The type that a constant has as it is written. A string has none yet, and a cast gives one that is not looked at.
#[derive(Clone, Copy, PartialEq)]
pub enum Literal {
    Integer,
    /// A number with a fraction or an exponent.
    Numeric,
    Boolean,
}

/// # Safety
///
/// `node` is an expression of the raw parser.
pub unsafe fn literal(node: *mut pg_sys::Node) -> Option<Literal> {
    // SAFETY: the tags say what the nodes are.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_A_Const {
            return None;
        }
        let constant = &mut *node.cast::<pg_sys::A_Const>();
        match constant.val.node.type_ {
            _ if constant.isnull => None,
            pg_sys::NodeTag::T_Integer => Some(Literal::Integer),
            // One that is too large for an integer may be one for a bigint.
            pg_sys::NodeTag::T_Float => {
                text(constant.val.fval.fval).parse::<i64>().map_or(Some(Literal::Numeric), |_| Some(Literal::Integer))
            }
            pg_sys::NodeTag::T_Boolean => Some(Literal::Boolean),
            _ => None,
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
pub unsafe fn string(node: *mut pg_sys::Node) -> String {
    // SAFETY: the caller's.
    unsafe { text((*node.cast::<pg_sys::String>()).sval) }
}

/// # Safety
///
/// `name` is a C string.
pub unsafe fn text(name: *const c_char) -> String {
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}
