use serde::{Deserialize, Serialize};

/// What people call the groups and the rows of a target, in the singular. Those of the platform where nothing says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Nouns {
    /// `recipe`, `worker`, `queue`.
    #[serde(alias = "group_word")]
    pub group_word: String,
    /// `generation`, `job`, `row`.
    #[serde(alias = "row_word")]
    pub row_word: String,
}

impl Default for Nouns {
    fn default() -> Nouns {
        Nouns { group_word: "recipe".into(), row_word: "generation".into() }
    }
}

impl Nouns {
    /// So many rows in scope, such as `2 jobs in scope`.
    pub fn in_scope(&self, rows: i64) -> String {
        format!("{} in scope", counted(rows, &self.row_word))
    }
}

/// A number of things, such as `1 job` and `2 entries`.
pub fn counted(count: i64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {}", plural(noun)) }
}

/// A noun as the first word of a title.
pub fn capitalized(noun: &str) -> String {
    let mut rest = noun.chars();
    rest.next().into_iter().flat_map(char::to_uppercase).chain(rest.clone()).collect()
}

/// The plural of an English noun that has a regular one.
pub fn plural(noun: &str) -> String {
    let ends_in = |endings: &[&str]| endings.iter().any(|ending| noun.ends_with(ending));
    match noun.strip_suffix('y') {
        Some(stem) if !ends_in(&["ay", "ey", "oy", "uy"]) => format!("{stem}ies"),
        _ if ends_in(&["s", "x", "z", "ch", "sh"]) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_thing_has_the_plural() {
        let singular = ["job", "entry", "key", "batch", "class", "generation"];
        assert_eq!(singular.map(plural), ["jobs", "entries", "keys", "batches", "classes", "generations"]);
        assert_eq!([0, 1, 2].map(|count| counted(count, "job")), ["0 jobs", "1 job", "2 jobs"]);
    }

    #[test]
    fn a_row_of_sql_and_a_report_are_read_alike() {
        for text in [r#"{"group_word":"worker","row_word":"job","a":1}"#, r#"{"groupWord":"worker","rowWord":"job"}"#] {
            let nouns: Nouns = serde_json::from_str(text).unwrap();
            assert_eq!(nouns, Nouns { group_word: "worker".into(), row_word: "job".into() });
        }
        assert_eq!(serde_json::from_str::<Nouns>("{}").unwrap(), Nouns::default());
    }
}
