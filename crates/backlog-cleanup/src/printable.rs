//! Text of the database, made safe to print: nothing in it controls a terminal, forges a line of a log, or is there and not
//! seen.

use backlog_cleanup_report::is_unseen;

/// Escapes text for people, as `\u{9b}`; the ends of lines stay.
pub fn printable(text: &str) -> String {
    escape(text, |char| char != '\n', |char| char.escape_default().to_string())
}

/// Escapes text for people that is one line.
pub fn one_line(text: &str) -> String {
    escape(text, |_| true, |char| char.escape_default().to_string())
}

/// Escapes the strings of a JSON text, as `\u009b`: it means the same as before.
pub fn json(text: &str) -> String {
    escape(
        text,
        |char| char != '\n',
        |char| char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    )
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool, escaped: impl Fn(char) -> String) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match is_unseen(char) && is_escaped(char) {
            true => safe.push_str(&escaped(char)),
            false => safe.push(char),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_controls_no_terminal_and_hides_nothing() {
        for (text, shown) in [
            ("two\nlines", "two\nlines"),
            ("\u{1b}[2J", r"\u{1b}[2J"),
            ("\u{9b}2J\u{9d}\u{85}", r"\u{9b}2J\u{9d}\u{85}"),
            ("\u{202e}dog\u{61c}\u{2028}\u{2029}", r"\u{202e}dog\u{61c}\u{2028}\u{2029}"),
            ("a\u{200b}b\u{feff}\u{e0041}", r"a\u{200b}b\u{feff}\u{e0041}"),
            ("über 日本 🍞", "über 日本 🍞"),
        ] {
            assert_eq!(printable(text), shown);
        }
        assert_eq!(one_line("x\n2026-01-01 INFO run ends"), r"x\n2026-01-01 INFO run ends");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let text = "\u{1b}\u{7f}\u{9b}\u{85}\u{202e}\u{2028}\u{e0041}\n\"\\ über 🍞";
        let escaped = json(&serde_json::to_string_pretty(&[text]).unwrap());
        assert!(escaped.chars().all(|char| char == '\n' || !is_unseen(char)), "{escaped}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&escaped).unwrap(), [text]);
    }
}
