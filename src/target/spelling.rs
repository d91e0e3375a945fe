use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use crate::postgres::error::Result;
use crate::postgres::now::one_now;
use crate::target::below::types_below;

/// What the texts of rows depend on that can change in spite of all locks.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Spelling {
    /// The labels of enums, each with its oid, and the attributes of row types: whoever owns the type can swap them, and locks no table.
    #[serde(default)]
    pub names: Vec<String>,
    /// The casts to text and JSON by a function, each with the version of that function: whoever owns it can replace it.
    #[serde(default)]
    casts: Vec<String>,
}

impl Spelling {
    pub fn of(types: &[pg_sys::Oid]) -> Result<Spelling> {
        Ok(Spelling {
            names: one_now::<Vec<String>>(NAMES, &[types.to_vec().into()])?.unwrap_or_default(),
            casts: one_now::<Vec<String>>(CASTS, &[types.to_vec().into()])?.unwrap_or_default(),
        })
    }

    /// Whether it is so still. A label that has come since is in no row that was there, and no expression names a new attribute.
    pub fn holds(&self, now: &Spelling) -> bool {
        has_all(&now.names, &self.names) && self.casts == now.casts
    }
}

/// The labels of the enums and the attributes of the row types among types, also below domains, arrays, row types and ranges.
pub const NAMES: &str = concat!(
    types_below!(),
    "SELECT pg_catalog.array_agg(name ORDER BY name)
    FROM (SELECT pg_catalog.concat_ws(' ', e.oid, e.enumlabel)
          FROM pg_catalog.pg_enum e JOIN type ON e.enumtypid OPERATOR(pg_catalog.=) type.oid
          UNION ALL
          -- Type by type, so that no catalog is read whole.
          SELECT attribute.name
          FROM type, LATERAL (SELECT pg_catalog.concat_ws(' ', a.attrelid, a.attnum, a.atttypid, a.attname)
                              FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) t.typrelid
                              WHERE t.oid OPERATOR(pg_catalog.=) type.oid AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2
                                AND NOT a.attisdropped
                              OFFSET 0) AS attribute (name)) AS named (name)"
);

/// The casts by a function to text, and to json, which documents of several columns use, from types and those below them.
const CASTS: &str = concat!(
    types_below!(),
    "SELECT pg_catalog.array_agg(pg_catalog.concat_ws(' ', c.oid, p.oid, p.xmin) ORDER BY c.oid)
    FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) c.castfunc
    WHERE c.castsource OPERATOR(pg_catalog.=) ANY (SELECT oid FROM type)
      AND c.casttarget OPERATOR(pg_catalog.=) ANY ('{pg_catalog.text, pg_catalog.json}'::pg_catalog.regtype[])"
);

/// Whether the names are there that were there before.
pub fn has_all(now: &[String], before: &[String]) -> bool {
    before.iter().all(|name| now.contains(name))
}
