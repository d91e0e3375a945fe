//! Numbers, times and ids as people read them, in the terminal and in the dashboard.

use std::borrow::Cow;

use backlog_cleanup_report::plural;
use chrono::{DateTime, Utc};
use indicatif::HumanCount;
use serde_json::Value;

/// `8389` as `8,389`.
pub fn number(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", HumanCount(number.unsigned_abs()))
}

/// `1 row`, `2 rows`, `2 batches`.
pub fn count(many: i64, noun: &str) -> String {
    let noun = if many == 1 { noun.into() } else { plural(noun) };
    format!("{} {noun}", number(many))
}

/// `1 row in scope`, `2 rows in scope`.
pub fn in_scope(many: i64, row_word: &str) -> String {
    format!("{} in scope", count(many, row_word))
}

/// `32 ms`, `4.2 s`, `3 min 5 s`, `2 h 10 min`.
pub fn duration(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    match milliseconds {
        ..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{:.1} s", milliseconds as f64 / 1000.0),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `2026-11-24 02:00:05`, in UTC.
pub fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A text as an argument of a command that is typed into a shell.
pub fn argument(text: &str) -> Cow<'_, str> {
    let is_plain = |char: char| char.is_alphanumeric() || "-_./:@%+=,".contains(char);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', r"'\''")).into(),
    }
}

/// A recipe's id; empty for rows without a recipe. One of several columns as SQL has it, the shorter key first.
pub fn recipe_id(id: &Value) -> String {
    match id {
        Value::Null => String::new(),
        Value::String(id) => id.clone(),
        Value::Object(columns) => {
            let mut pairs: Vec<(&String, &Value)> = columns.iter().collect();
            pairs.sort_by_key(|(name, _)| (name.len(), *name));
            let pairs: Vec<String> =
                pairs.into_iter().map(|(name, value)| format!("{}: {value}", Value::from(name.as_str()))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        id => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{argument, count, duration, number};

    #[test]
    fn numbers_and_durations_read_at_a_glance() {
        for (figure, words) in [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567")] {
            assert_eq!(number(figure), words);
        }
        for (many, noun, words) in
            [(1, "row", "1 row"), (0, "row", "0 rows"), (2_000, "batch", "2,000 batches"), (2, "policy", "2 policies")]
        {
            assert_eq!(count(many, noun), words);
        }
        for (text, typed) in [("jobs", "jobs"), ("two words", "'two words'"), ("o'hara", r"'o'\''hara'"), ("", "''")] {
            assert_eq!(argument(text), typed);
        }
        for (milliseconds, words) in
            [(32, "32 ms"), (4_200, "4.2 s"), (185_000, "3 min 5 s"), (7_800_000, "2 h 10 min")]
        {
            assert_eq!(duration(milliseconds), words);
        }
    }
}
