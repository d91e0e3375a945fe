//! What a block of PL/pgSQL calls, as far as its text tells.

use std::ffi::CString;

use pgrx::prelude::*;

use crate::postgres::memory::in_own_memory;
use crate::postgres::parse::{Call, parse};

/// The calls that were found in a block, and its identifiers and strings, which may mention others.
pub struct Block {
    pub calls: Vec<Call>,
    pub words: Vec<String>,
}

/// So many texts of a block that are no SQL are tried: each is parsed up to its semicolon.
const TRIES: usize = 20;

/// Reads a block. Its statements begin with a word of SQL or PL/pgSQL and end with a semicolon; what is in between is parsed as
/// SQL. An EXECUTE of a string is not looked into. `None` if it is no block.
pub fn read(body: &str) -> Option<Block> {
    let tokens = tokens(body)?;
    let text = |place: usize| -> &str {
        let end = tokens.get(place + 1).map_or(body.len(), |next| next.start);
        body.get(tokens[place].start..end).unwrap_or_default()
    };
    let mut calls = Vec::new();
    let (mut parsed_up_to, mut tries) = (0, 0);
    for (place, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_semicolon) {
        let end = tokens[place..].iter().find(|token| token.is_semicolon).map_or(body.len(), |token| token.start);
        let slice = body.get(token.start..end).unwrap_or_default();
        let word =
            text(place).split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default();
        let candidate = match word.to_ascii_lowercase().as_str() {
            // What was parsed already is a part of another statement.
            _ if token.start < parsed_up_to => continue,
            "select" | "call" | "with" => slice.to_owned(),
            "perform" => format!("SELECT {}", &slice["perform".len()..]),
            "" if slice.starts_with(":=") => format!("SELECT {}", &slice[":=".len()..]),
            _ => continue,
        };
        match parse(&candidate) {
            Some(found) => {
                calls.extend(found.into_iter().flat_map(|statement| statement.calls));
                parsed_up_to = end;
            }
            None if tries == TRIES => break,
            None => tries += 1,
        }
    }
    // A comment behind a word is no part of it.
    let is_end = |letter: char| !letter.is_alphanumeric() && letter != '_';
    let words = (0..tokens.len()).map(text).map(|token| match token.starts_with(char::is_alphabetic) {
        true => token.split(is_end).next().unwrap_or_default().to_owned(),
        false => token.to_owned(),
    });
    let words = words.collect();
    Some(Block { calls, words })
}

struct Token {
    start: usize,
    is_semicolon: bool,
}

/// The tokens of a text, by PostgreSQL's own lexer; `None` if it cannot read them.
fn tokens(body: &str) -> Option<Vec<Token>> {
    let text = CString::new(body).ok()?;
    in_own_memory(|| {
        let mut tokens = Vec::new();
        // SAFETY: text and state outlive the scanner, which takes nothing but memory.
        unsafe {
            let mut state = pg_sys::core_yy_extra_type::default();
            let keywords = (&raw const pg_sys::ScanKeywords, (&raw const pg_sys::ScanKeywordTokens).cast());
            let scanner = pg_sys::scanner_init(text.as_ptr(), &mut state, keywords.0, keywords.1);
            loop {
                let (mut value, mut start) = (pg_sys::core_YYSTYPE::default(), 0);
                let token = pg_sys::core_yylex(&mut value, &mut start, scanner);
                if token == 0 {
                    break;
                }
                tokens.push(Token { start: start as usize, is_semicolon: token == i32::from(b';') });
            }
            pg_sys::scanner_finish(scanner);
        }
        Some(tokens)
    })
}
