use std::collections::HashSet;

/// So many characters of a secret in a row are one, too: what a receiver quotes may be cut off, by it or by us.
const PART: usize = 8;

/// A text with `***` for each secret in it, or part of one.
pub fn redacted(text: &str, secrets: &[String]) -> String {
    let text: Vec<char> = text.chars().collect();
    let mut is_secret = vec![false; text.len()];
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        let secret: Vec<char> = secret.chars().collect();
        let long = secret.len().min(PART);
        let parts: HashSet<&[char]> = secret.windows(long).collect();
        for (at, part) in text.windows(long).enumerate() {
            if parts.contains(part) {
                is_secret[at..at + long].fill(true);
            }
        }
    }
    let marked: Vec<(char, bool)> = text.into_iter().zip(is_secret).collect();
    let runs = marked.chunk_by(|(_, one), (_, next)| one == next);
    runs.map(|run| if run[0].1 { "***".to_owned() } else { run.iter().map(|(char, _)| char).collect() }).collect()
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn no_part_of_a_secret_is_quoted() {
        let secrets = ["Bearer 0123456789abcdef".to_owned(), "key".into(), String::new()];
        for (text, quoted) in [
            ("the key 0123456789abcdef is wrong", "the *** is wrong"),
            ("Bearer 0123456789abcd", "***"),
            ("it ends in 89abcdef", "it ends in ***"),
            ("until 012345 ms: 502", "until 012345 ms: 502"),
            ("", ""),
        ] {
            assert_eq!(redacted(text, &secrets), quoted);
        }
    }
}
