/// What a policy is for, in words: `recipe "1", status "failed"`, or `default` where it names nothing. `group_word` is what people call
/// a recipe.
pub fn policy_name(
    group_word: &str,
    recipe_id: Option<&str>,
    failure_type: Option<&str>,
    status: Option<&str>,
) -> String {
    let names = [(group_word, recipe_id), ("failure type", failure_type), ("status", status)];
    let named = names.into_iter().filter_map(|(what, name)| Some(format!("{what} \"{}\"", name?)));
    match named.collect::<Vec<_>>() {
        named if named.is_empty() => "default".into(),
        named => named.join(", "),
    }
}
