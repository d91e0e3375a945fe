use std::ffi::CString;

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::direct_function_call_as_datum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;

use crate::postgres::error::{Result, error};

/// A `jsonb` that a function returns, passed to PostgreSQL as text. `pgrx::JsonB` needs a tree of values, which for 20,000
/// recipes costs as much as finding their rows.
pub struct Json(String);

impl Json {
    pub fn of(value: &impl serde::Serialize) -> Result<Json> {
        serde_json::to_string(value).map(Json).map_err(|failure| {
            error(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, failure.to_string(), "report this as a bug".into())
        })
    }
}

// SAFETY: a `Json` is returned as what it says here, a jsonb.
unsafe impl SqlTranslatable for Json {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Json);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

// SAFETY: jsonb_in takes a C string, and returns a jsonb or raises an ERROR.
unsafe impl BoxRet for Json {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        let text = CString::new(self.0).unwrap_or_default();
        // SAFETY: see above.
        unsafe {
            match direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(text.as_ptr().into())]) {
                Some(jsonb) => fcinfo.return_raw_datum(jsonb),
                None => fcinfo.return_null(),
            }
        }
    }
}
