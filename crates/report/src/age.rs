/// An age in words: `"2 hours ago"`, `"1 day ago"`, `"45 seconds ago"`; `"just now"` below one second and for the
/// future. `seconds` is the age in whole seconds.
pub fn age_in_words(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..=0 => return "just now".to_owned(),
        1..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

#[cfg(test)]
mod tests {
    use super::age_in_words;

    #[test]
    fn an_age_reads_in_its_largest_whole_unit() {
        for (seconds, words) in [
            (-5, "just now"),
            (0, "just now"),
            (1, "1 second ago"),
            (45, "45 seconds ago"),
            (60, "1 minute ago"),
            (3_599, "59 minutes ago"),
            (7_200, "2 hours ago"),
            (86_400, "1 day ago"),
            (10 * 86_400, "10 days ago"),
        ] {
            assert_eq!(age_in_words(seconds), words);
        }
    }
}
