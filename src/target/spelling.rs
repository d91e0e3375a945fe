use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use crate::postgres::error::Result;
use crate::postgres::now::one_now;
use crate::target::below::types_below;

/// What the texts of rows depend on that can change in spite of all locks.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Spelling {
    /// The labels of enums, each with its oid: whoever owns the type can swap them, and locks no table.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The casts to text and JSON by a function, each with the version of that function: whoever owns it can replace it.
    #[serde(default)]
    casts: Vec<String>,
}

impl Spelling {
    pub fn of(types: &[pg_sys::Oid]) -> Result<Spelling> {
        Ok(Spelling {
            labels: one_now::<Vec<String>>(LABELS, &[types.to_vec().into()])?.unwrap_or_default(),
            casts: one_now::<Vec<String>>(CASTS, &[types.to_vec().into()])?.unwrap_or_default(),
        })
    }

    /// Whether it is so still. A label that has come since is in no row that was there.
    pub fn holds(&self, now: &Spelling) -> bool {
        has_all(&now.labels, &self.labels) && self.casts == now.casts
    }
}

/// The labels of the enums among types, also below domains, arrays, row types and ranges.
pub const LABELS: &str = concat!(
    types_below!(),
    "SELECT pg_catalog.array_agg(pg_catalog.concat_ws(' ', e.oid, e.enumlabel) ORDER BY e.oid)
    FROM pg_catalog.pg_enum e JOIN type ON e.enumtypid OPERATOR(pg_catalog.=) type.oid"
);

/// The casts by a function to text, and to json, which documents of several columns use, from types and those below them.
const CASTS: &str = concat!(
    types_below!(),
    "SELECT pg_catalog.array_agg(pg_catalog.concat_ws(' ', c.oid, p.oid, p.xmin) ORDER BY c.oid)
    FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) c.castfunc
    WHERE c.castsource OPERATOR(pg_catalog.=) ANY (SELECT oid FROM type)
      AND c.casttarget OPERATOR(pg_catalog.=) ANY ('{pg_catalog.text, pg_catalog.json}'::pg_catalog.regtype[])"
);

/// Whether labels are there that were there before.
pub fn has_all(now: &[String], before: &[String]) -> bool {
    before.iter().all(|label| now.contains(label))
}
