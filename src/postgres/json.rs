use std::ffi::CString;

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::direct_function_call_as_datum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;

use crate::postgres::error::{Result, error};

/// A `jsonb` that a function returns, made from text. `pgrx::JsonB` needs a tree of values, which for 20,000 recipes costs as
/// much as finding their rows.
pub struct Json(pg_sys::Datum);

impl Json {
    /// Lives in the memory context that is current now. Errors: 54000 (it is larger than a `jsonb` can be).
    pub fn of(value: &impl serde::Serialize) -> Result<Json> {
        let text = serde_json::to_string(value).map_err(|failure| {
            error(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, failure.to_string(), "report this as a bug".into())
        })?;
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: jsonb_in takes a C string, and returns a jsonb or raises an ERROR.
        let jsonb = unsafe { direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(text.as_ptr().into())]) };
        Ok(Json(jsonb.unwrap_or(pg_sys::Datum::null())))
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

// SAFETY: a `Json` is a jsonb.
unsafe impl BoxRet for Json {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: see above.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}
