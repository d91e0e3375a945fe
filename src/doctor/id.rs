use crate::obstacles::problem::{Problem, Status};
use crate::postgres::error::Result;
use crate::postgres::now::one_now;
use crate::target::Target;
use crate::target::leaf::leaves;

/// Finds out whether a unique index says that an id is that of one row. Of a table with partitions or children none can, as a rule.
pub fn not_unique(target: &Target) -> Result<Option<Problem>> {
    const IS_UNIQUE: &str = "
        SELECT EXISTS (SELECT FROM pg_catalog.pg_index
                       WHERE indrelid OPERATOR(pg_catalog.=) $1 AND indisunique AND indisvalid AND indpred IS NULL AND indexprs IS NULL
                         AND (indkey::pg_catalog.int2[])[0:indnkeyatts OPERATOR(pg_catalog.-) 1] OPERATOR(pg_catalog.<@) $2)";
    let is_alone = matches!(&leaves(target)?[..], [leaf] if leaf.table.oid == target.table.oid);
    if !is_alone || target.table.is_foreign() {
        return Ok(None);
    }
    let numbers: Vec<i16> = target.id.columns.iter().map(|(_, column)| column.number).collect();
    if one_now::<bool>(IS_UNIQUE, &[target.table.oid.into(), numbers.into()])? == Some(true) {
        return Ok(None);
    }
    let names: Vec<&str> = target.id.columns.iter().map(|(name, _)| name.as_str()).collect();
    let detail = format!(
        "no unique index says that {} is the id of one row only: explain and reports may mean another one; decide which columns are the id",
        names.join(", ")
    );
    Ok(Some(Problem { status: Status::Warn, detail, fix: None }))
}
