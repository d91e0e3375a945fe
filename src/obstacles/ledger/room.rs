//! Whether there is room for the row: in its columns, and in the sequences that number it.

use pgrx::prelude::*;

use crate::obstacles::ledger::column::{Column, Columns};
use crate::obstacles::ledger::refuses;
use crate::obstacles::problem::{Problem, problems};
use crate::postgres::error::Result;
use crate::postgres::read::read_one;
use crate::target::Ledger;

/// The bytes that a modifier of a length counts for itself.
const HEADER: i32 = 4;

/// Values that are longer than their columns.
pub fn lengths(columns: &Columns) -> Result<Vec<Problem>> {
    let mut found = Vec::new();
    for column in columns.list.iter().filter(|column| column.is_built_in) {
        let Some(written) = column.written() else { continue };
        let reason = match pg_sys::Oid::from(column.base) {
            pg_sys::VARCHAROID | pg_sys::BPCHAROID if column.modifier > HEADER => {
                let needed =
                    read_one::<i32>(&format!("SELECT pg_catalog.char_length({written})"), &[])?.unwrap_or_default();
                let room = column.modifier - HEADER;
                (needed > room).then(|| format!("it needs {needed} characters, for which there is no room in {room}"))
            }
            pg_sys::INT2OID => too_large(written, i16::MAX.into()),
            pg_sys::INT4OID => too_large(written, i32::MAX.into()),
            pg_sys::NUMERICOID if column.modifier > HEADER => {
                // The upper half of the modifier is the precision, the lower eleven bits are the scale.
                let (precision, scale) = ((column.modifier - HEADER) >> 16, (column.modifier - HEADER) & 0x7ff);
                let digits = u32::try_from(precision - scale).unwrap_or_default();
                10_i64.checked_pow(digits).and_then(|end| too_large(written, end - 1))
            }
            _ => None,
        };
        let name = |Column { name, .. }: &Column| format!("column \"{name}\"");
        found.extend(reason.map(|reason| refuses(columns.ledger, &format!("{}: {reason}", name(column)))));
    }
    Ok(found)
}

fn too_large(written: &str, largest: i64) -> Option<String> {
    let number: i64 = written.parse().ok()?;
    (number > largest).then(|| format!("{number} is more than {largest}"))
}

/// Sequences that are at their end, or have come to numbers that their column cannot have or has already.
const SEQUENCES: &str = "
    SELECT 'fail', format('ledger %s cannot take the row of a run: %s', $2, reason), NULL
    FROM (
        SELECT a.attname, s.*, coalesce(pg_sequence_last_value(s.seqrelid) + s.seqincrement, s.seqstart) AS next,
               CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 END AS largest,
               owned OR pg_get_expr(d.adbin, d.adrelid) ~ '^nextval\\([^()]*\\)$' AS is_its_value
        FROM (
            SELECT adnum AS number, objid, refobjid AS sequence, false AS owned
            FROM pg_attrdef JOIN pg_depend ON classid = 'pg_attrdef'::regclass AND objid = pg_attrdef.oid
            WHERE adrelid = $1 AND refclassid = 'pg_class'::regclass
            UNION
            SELECT refobjsubid, NULL, objid, true FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = $1 AND deptype = 'i'
        ) filled
        JOIN pg_sequence s ON s.seqrelid = filled.sequence
        JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = filled.number
        LEFT JOIN pg_attrdef d ON d.oid = filled.objid
    ) sequence
    CROSS JOIN LATERAL (SELECT CASE
        WHEN NOT seqcycle AND (next > seqmax OR next < seqmin)
            THEN format('sequence %s is at its end', seqrelid::regclass)
        WHEN is_its_value AND next > largest
            THEN format('sequence %s has come to %s, and column \"%s\" ends at %s', seqrelid::regclass, next, attname, largest)
    END) problem (reason)
    WHERE reason IS NOT NULL
    ORDER BY 2";

pub fn sequences(ledger: &Ledger) -> Result<Vec<Problem>> {
    problems(SEQUENCES, &[ledger.table.oid.into(), ledger.table.name.as_str().into()])
}
