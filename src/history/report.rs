use std::ffi::CString;

use backlog_cleanup_report::CleanupDetail;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::direct_function_call_as_datum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;

use crate::postgres::error::{Result, error};
use crate::rank::tally::{self, Swept};
use crate::target::Target;

/// What a run did per recipe.
pub fn details(target: &Target, swept: &[Swept]) -> Result<Vec<CleanupDetail>> {
    let names = tally::names(target)?;
    let detail = |recipe: &Swept| CleanupDetail {
        recipe_id: target.json_recipe_id(recipe.recipe_id.as_deref()),
        recipe_name: tally::name(&names, recipe.recipe_id.as_deref()),
        failed_count: recipe.failed,
        cleaned_count: recipe.removed,
        kept_count: recipe.failed - recipe.removed,
    };
    Ok(swept.iter().map(detail).collect())
}

/// A report as SQL returns it, of type `jsonb`: its text, which PostgreSQL reads. `pgrx::JsonB` wants a tree of values, which
/// for 20,000 recipes costs as much as to find their rows.
pub struct Report(String);

/// A report of a type of `backlog_cleanup_report`.
pub fn as_json(report: &impl serde::Serialize) -> Result<Report> {
    serde_json::to_string(report).map(Report).map_err(|failure| {
        error(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, failure.to_string(), "report this as a bug".into())
    })
}

unsafe impl SqlTranslatable for Report {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Report);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

unsafe impl BoxRet for Report {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        let text = CString::new(self.0).unwrap_or_default();
        unsafe {
            match direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(text.as_ptr().into())]) {
                Some(jsonb) => fcinfo.return_raw_datum(jsonb),
                None => fcinfo.return_null(),
            }
        }
    }
}
