use backlog_cleanup_report::fingerprint;
use pgrx::prelude::*;
use pgrx::spi::quote_literal;

use crate::postgres::citus::is_distributed;
use crate::postgres::error::{Result, error};
use crate::target::Target;
use crate::target::leaf::Leaf;

/// Characters of a failure type.
const LENGTH: i32 = 100;

/// Characters of a text that are looked at: PostgreSQL takes 12 bytes for each that it trims.
const LOOKED_AT: i32 = 10_000;

/// Bytes of a value that is looked into: of a `json`, and of another one as it is stored. Compressed, it can be 100 times as long.
const LARGEST: i32 = 100_000;

/// Brackets of a JSON document that is looked into: `->>` needs PostgreSQL's stack for each level of a `json`.
const BRACKETS: i32 = 5_000;

/// What JSON can write and a text cannot have, a zero or half a character. `->>` fails for it. Without backslashes that are escaped.
const NO_TEXT: &str =
    r"E'\\\\u0000|\\\\u[dD][89abAB]..(?!\\\\u[dD][c-fC-F])|(?<!\\\\u[dD][89abAB]..)\\\\u[dD][c-fC-F]'";

/// Types of which any text is a failure type.
const IN_TEXT: [pg_sys::Oid; 4] = [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::JSONBOID, pg_sys::JSONOID];

impl Target {
    /// Refuses to find rows by their failure types where they have none. Errors: 22023.
    pub fn has_failure_types(&self) -> Result<()> {
        if self.failure_type_column.is_some() {
            return Ok(());
        }
        let message = format!("target \"{}\" has no failure_type_column", self.name);
        let hint = format!("SELECT * FROM backlog_cleanup.target WHERE name = {}", quote_literal(&self.name));
        Err(error(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, hint))
    }

    /// The failure type of a row `g`, as text: of a text the first line or, where that is on, the fingerprint, of a JSON document
    /// that of its `message`, `error` or `class`, of an array of these that of its last element, at most 100 characters; of another type the
    /// value.
    /// One expression for what groups rows and what selects them. No row makes it fail, or takes much memory.
    pub fn failure_type_of_row(&self) -> String {
        self.failure_type_told(&|text| self.type_of_bounded(text))
    }

    /// The same as the server can tell it that has the rows of a leaf: nodes of Citus return what the fingerprint is taken of, since they do not
    /// have the function that takes it. `failure_type_here` does.
    pub fn failure_type_there(&self, leaf: &Leaf) -> String {
        match self.takes_fingerprint_here(leaf.is_distributed) {
            true => self.failure_type_told(&str::to_owned),
            false => self.failure_type_of_row(),
        }
    }

    /// The failure type of what `failure_type_there` has returned.
    pub fn failure_type_here(&self, leaf: &Leaf, there: &str) -> String {
        if self.takes_fingerprint_here(leaf.is_distributed) { fingerprint(there) } else { there.to_owned() }
    }

    fn takes_fingerprint_here(&self, is_distributed: bool) -> bool {
        is_distributed && self.fingerprint_function.is_some() && self.has_failure_type_in_text()
    }

    /// Refuses to find rows by their failure types where nodes cannot tell them. Errors: 0A000.
    pub fn finds_failure_types(&self, hint: impl FnOnce() -> String) -> Result<()> {
        if !self.takes_fingerprint_here(true) || !is_distributed(self.table.oid)? {
            return Ok(());
        }
        let message = format!(
            "rows of table \"{}\", which Citus distributes, are not found by failure types that are fingerprints, which its nodes cannot take",
            self.table.name
        );
        Err(error(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message, hint()))
    }

    /// `told` makes a failure type of a text of at most `LOOKED_AT` characters.
    fn failure_type_told(&self, told: &dyn Fn(&str) -> String) -> String {
        let of_text = |text: &str| told(&format!("pg_catalog.left({text}, {LOOKED_AT})"));
        let whole = self.failure_type.of_row();
        let is_large = format!("pg_catalog.pg_column_size({whole}) OPERATOR(pg_catalog.>) {LARGEST}");
        let (column, is_array) = match self.type_of_failures() {
            type_oid if type_oid == self.failure_type.type_oid => (whole, false),
            _ => (format!("({whole})[pg_catalog.array_upper({whole}, 1)]"), true),
        };
        match self.type_of_failures() {
            pg_sys::TEXTOID | pg_sys::VARCHAROID => {
                let too_long = if is_array { format!("WHEN {is_large} THEN '(too long)'") } else { String::new() };
                // `left` reads each character, which takes half as long as a fingerprint.
                told(&format!(
                    "CASE {too_long} WHEN pg_catalog.octet_length({column}::pg_catalog.text) OPERATOR(pg_catalog.<=) {LOOKED_AT}
                          THEN {column}::pg_catalog.text ELSE pg_catalog.left({column}::pg_catalog.text, {LOOKED_AT}) END"
                ))
            }
            type_oid @ (pg_sys::JSONBOID | pg_sys::JSONOID) => {
                let is_json = type_oid == pg_sys::JSONOID;
                let kind = if is_json { "json" } else { "jsonb" };
                let last = format!(
                    "CASE WHEN pg_catalog.{kind}_typeof({column}) OPERATOR(pg_catalog.=) 'array'
                     THEN COALESCE({column} OPERATOR(pg_catalog.->) -1, {column}) ELSE {column} END"
                );
                let keys =
                    ["message", "error", "class"].map(|key| format!("({last}) OPERATOR(pg_catalog.->>) '{key}'"));
                let line = of_text(&format!("COALESCE({}, ({last}) OPERATOR(pg_catalog.#>>) '{{}}')", keys.join(", ")));
                // A `jsonb` is written when it is read, so that it has only what a text can have.
                let as_written = format!(
                    "WHEN pg_catalog.strpos({column}::pg_catalog.text, E'\\\\u') OPERATOR(pg_catalog.>) 0
                          AND (pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8'
                               OR pg_catalog.replace({column}::pg_catalog.text, E'\\\\\\\\', '_') OPERATOR(pg_catalog.~) {NO_TEXT})
                     THEN {}",
                    of_text(&format!("{column}::pg_catalog.text"))
                );
                let text = format!("{column}::pg_catalog.text");
                let is_long = match is_json {
                    true => format!(
                        "{is_large} OR pg_catalog.octet_length({text}) OPERATOR(pg_catalog.>) {LARGEST}
                         OR pg_catalog.octet_length({text}) OPERATOR(pg_catalog.-)
                            pg_catalog.octet_length(pg_catalog.translate({text}, '[{{', '')) OPERATOR(pg_catalog.>) {BRACKETS}"
                    ),
                    false => is_large,
                };
                format!(
                    "CASE WHEN {is_long} THEN '(too long)' {} ELSE {line} END",
                    if is_json { &as_written } else { "" }
                )
            }
            _ => format!(
                "CASE WHEN {is_large} THEN '(too long)' ELSE pg_catalog.left({}, {LENGTH}) END",
                self.failure_type.as_text()
            ),
        }
    }

    /// The condition on a row `g` that it has this failure type, as SQL. Compared by its bytes, as rows are grouped.
    pub fn has_failure_type(&self, failure_type: &str) -> String {
        format!("{} OPERATOR(pg_catalog.=) {failure_type} COLLATE pg_catalog.\"C\"", self.failure_type_of_row())
    }

    /// A failure type as rows have it, as SQL.
    pub fn written_failure_type(&self, failure_type: &str) -> String {
        if self.has_failure_type_in_text() {
            return self.type_of_text(&format!("{}::pg_catalog.text", quote_literal(failure_type)));
        }
        let text = self.failure_type.text_of(&self.failure_type.literal(failure_type));
        format!("pg_catalog.left({text}, {LENGTH})")
    }

    /// Whether any text is a failure type, whatever the column's type can read.
    pub fn has_failure_type_in_text(&self) -> bool {
        IN_TEXT.contains(&self.type_of_failures())
    }

    /// The type of what says why a row has failed: of an array of texts or documents its last element.
    fn type_of_failures(&self) -> pg_sys::Oid {
        let type_oid = self.failure_type.type_oid;
        // SAFETY: a look-up in the system cache.
        let element = unsafe { pg_sys::get_element_type(type_oid) };
        if IN_TEXT.contains(&element) { element } else { type_oid }
    }

    /// The failure type of a text: its fingerprint, or its first line that is not empty. Compared by its bytes.
    fn type_of_text(&self, text: &str) -> String {
        self.type_of_bounded(&format!("pg_catalog.left({text}, {LOOKED_AT})"))
    }

    /// The same of a text of at most `LOOKED_AT` characters.
    fn type_of_bounded(&self, text: &str) -> String {
        let text = format!("{text} COLLATE pg_catalog.\"C\"");
        match &self.fingerprint_function {
            Some(fingerprint) => format!("{fingerprint}({text})"),
            None => format!(
                "pg_catalog.rtrim(pg_catalog.left(pg_catalog.split_part(pg_catalog.ltrim({text}, \
                 E' \\t\\r\\n'), E'\\n', 1), {LENGTH}), E' \\t\\r')"
            ),
        }
    }
}
