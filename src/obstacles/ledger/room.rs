//! Whether there is room for the row: in its columns, and in the sequences that number it.

use pgrx::prelude::*;
use pgrx::spi::quote_literal;
use serde::Deserialize;

use crate::obstacles::ledger::answer::refuses;
use crate::obstacles::ledger::column::{Column, Columns};
use crate::obstacles::ledger::constraint::ask;
use crate::obstacles::problem::{Problem, rows_of};
use crate::postgres::error::Result;
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::read::read_one;
use crate::postgres::table::Table;
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
                let needed = format!("SELECT pg_catalog.char_length(({written})::pg_catalog.text)");
                let needed = read_one::<i32>(&needed, &[])?.unwrap_or_default();
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

/// The sequences that fill columns of a table, by a default or as an identity.
const SEQUENCES: &str = "
    SELECT jsonb_build_object(
               'oid', s.seqrelid::bigint, 'name', s.seqrelid::regclass::text, 'column', a.attname, 'start', seqstart,
               'lacking', CASE WHEN NOT filled.is_identity AND NOT has_sequence_privilege(c.relowner, s.seqrelid, 'USAGE, UPDATE')
                               THEN format('GRANT USAGE ON SEQUENCE %s TO %I', s.seqrelid::regclass, pg_get_userbyid(c.relowner)) END,
               'increment', seqincrement, 'min', seqmin, 'max', seqmax, 'cycles', seqcycle, 'quoted', quote_ident(a.attname),
               'is_unique', EXISTS (SELECT FROM pg_index WHERE indrelid = $1 AND indisunique AND indisvalid AND indpred IS NULL
                                      AND indnkeyatts = 1 AND indkey[0] = a.attnum),
               'largest', CASE WHEN filled.is_identity OR pg_get_expr(d.adbin, d.adrelid) ~ '^nextval[(][^()]*[)]$' THEN
                   CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647
                                   WHEN 'int8'::regtype THEN 9223372036854775807 END END)
    FROM (
        SELECT adnum AS number, objid, refobjid AS sequence, false AS is_identity
        FROM pg_attrdef JOIN pg_depend ON classid = 'pg_attrdef'::regclass AND objid = pg_attrdef.oid
        WHERE adrelid = $1 AND refclassid = 'pg_class'::regclass
        UNION
        SELECT refobjsubid, NULL, objid, true FROM pg_depend
        WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = $1 AND deptype = 'i'
    ) filled
    JOIN pg_sequence s ON s.seqrelid = filled.sequence
    JOIN pg_class c ON c.oid = $1
    JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = filled.number
    LEFT JOIN pg_attrdef d ON d.oid = filled.objid
    ORDER BY 1";

#[derive(Deserialize)]
struct Sequence {
    oid: u32,
    name: String,
    column: String,
    /// What gives the ledger's owner the privilege that its default needs; `None` if the owner has it.
    lacking: Option<String>,
    quoted: String,
    is_unique: bool,
    start: i64,
    increment: i64,
    min: i64,
    max: i64,
    cycles: bool,
    /// The largest number of the column's type, if the column has the sequence's numbers as they are.
    largest: Option<i64>,
}

/// Finds sequences that are at their end, have come to numbers that their column cannot have, or come to one that a row has already, as
/// after a restore.
pub fn sequences(ledger: &Ledger) -> Result<Vec<Problem>> {
    let mut found = Vec::new();
    for sequence in rows_of::<Sequence>(SEQUENCES, &[ledger.table.oid.into()])? {
        if sequence.lacking.is_some() {
            let reason = format!("its owner has no USAGE privilege on sequence {}", sequence.name);
            found.push(Problem { fix: sequence.lacking, ..refuses(ledger, &reason) });
            continue;
        }
        let Some(next) = sequence.next()? else { continue };
        let reason = match sequence.largest {
            _ if !sequence.cycles && !next.is_some_and(|next| (sequence.min..=sequence.max).contains(&next)) => {
                format!("sequence {} is at its end", sequence.name)
            }
            Some(largest) if next.is_some_and(|next| next > largest) => {
                format!("sequence {} is past {largest}, the end of column \"{}\"", sequence.name, sequence.column)
            }
            Some(_) => {
                let taken = next.filter(|_| sequence.is_unique).filter(|next| sequence.is_taken(*next, &ledger.table));
                let Some(next) = taken else { continue };
                let reason = format!("sequence {} comes to {next}, which a row has already", sequence.name);
                found.push(Problem { fix: Some(sequence.catch_up(&ledger.table)), ..refuses(ledger, &reason) });
                continue;
            }
            None => continue,
        };
        found.push(refuses(ledger, &reason));
    }
    Ok(found)
}

impl Sequence {
    /// The number that comes next; `Some(None)` if there is none, `None` if the sequence is gone or its owner may not read it. Read as a
    /// table: asking for its last value would lock the sequence until the transaction ends.
    fn next(&self) -> Result<Option<Option<i64>>> {
        let Some(table) = Table::of(self.oid.into())?.filter(|table| table.allows_its_owner("SELECT").is_ok()) else {
            return Ok(None);
        };
        let last = format!("SELECT CASE WHEN is_called THEN last_value END FROM {}", table.name);
        let last = reading_as_owner_of(&table, || read_one::<i64>(&last, &[]))?;
        Ok(Some(last.map_or(Some(self.start), |last| last.checked_add(self.increment))))
    }

    fn is_taken(&self, number: i64, table: &Table) -> bool {
        let taken = format!(
            "SELECT EXISTS (SELECT FROM {} r WHERE r.{} OPERATOR(pg_catalog.=) {number})",
            table.name, self.quoted
        );
        ask(table, taken) == Some(true)
    }

    /// The statement that lets it go on behind the numbers that there are.
    fn catch_up(&self, table: &Table) -> String {
        let last = if self.increment > 0 { "max" } else { "min" };
        format!("SELECT setval({}, (SELECT {last}({}) FROM {}))", quote_literal(&self.name), self.quoted, table.name)
    }
}
