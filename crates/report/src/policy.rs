use std::borrow::Cow;

/// What a policy is for, in words: `recipe "1", status "failed"`, or `default` where it names nothing. `group_word` is what people call
/// a recipe. Quotes within a name that reads like two are doubled, as in an identifier: no two policies have the same words.
pub fn policy_name(
    group_word: &str,
    recipe_id: Option<&str>,
    failure_type: Option<&str>,
    status: Option<&str>,
) -> String {
    let names = [(group_word, recipe_id), ("failure type", failure_type), ("status", status)];
    let named = names.into_iter().filter_map(|(what, name)| Some(format!("{what} \"{}\"", escaped(name?))));
    match named.collect::<Vec<_>>() {
        named if named.is_empty() => "default".into(),
        named => named.join(", "),
    }
}

fn escaped(name: &str) -> Cow<'_, str> {
    let is_like_two = ["\", failure type ", "\", status "].iter().any(|word| name.contains(word));
    if is_like_two { name.replace('"', "\"\"").into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_policies_have_the_same_words() {
        let words = |recipe, failure_type, status| policy_name("recipe", recipe, failure_type, status);
        assert_ne!(words(Some("a\", status \"b"), None, None), words(Some("a"), None, Some("b")));
        assert_ne!(words(Some("a\", status "), None, None), words(Some("a"), None, Some("")));
        assert_eq!(words(Some("{\"k\": \"v\"}"), None, Some("b")), "recipe \"{\"k\": \"v\"}\", status \"b\"");
    }
}
