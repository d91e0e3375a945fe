use serde::{Deserialize, Serialize};

/// The state of the page, kept in its address: it works without JavaScript, and can be reloaded and shared.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    /// A row of `backlog_cleanup.target`; `""` is the usual one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// How far back the chart goes.
    #[serde(skip_serializing_if = "Span::is_default")]
    pub span: Span,
    /// A part of a recipe's name, or its id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub search: String,
    #[serde(skip_serializing_if = "Sort::is_default")]
    pub sort: Sort,
    /// The page of the recipes, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<usize>,
    /// The run whose details are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<i64>,
    /// The run that was started on this page; the page shows its outcome first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<i64>,
    /// Whether the rows are counted before anything is shown.
    #[serde(skip_serializing_if = "is_false")]
    pub whole: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub enum Span {
    #[serde(rename = "1d")]
    Day,
    #[default]
    #[serde(rename = "2d")]
    TwoDays,
    #[serde(rename = "7d")]
    Week,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    #[default]
    Failed,
    Removable,
    Oldest,
    Name,
}

impl Query {
    /// Whether somebody has just come to the page of a target.
    pub fn is_first(&self) -> bool {
        *self == Query { target: self.target.clone(), ..Query::default() }
    }

    pub fn open(&self) -> Option<i64> {
        self.run.or(self.asked)
    }

    /// The address of the page after a change.
    pub fn link(&self, change: impl FnOnce(&mut Query)) -> String {
        let mut query = self.clone();
        change(&mut query);
        match serde_urlencoded::to_string(&query) {
            Ok(query) if !query.is_empty() => format!("/?{query}"),
            _ => "/".into(),
        }
    }
}

impl Span {
    pub const ALL: [Span; 3] = [Span::Day, Span::TwoDays, Span::Week];

    pub fn hours(self) -> i32 {
        match self {
            Span::Day => 24,
            Span::TwoDays => 48,
            Span::Week => 168,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Span::Day => "24 hours",
            Span::TwoDays => "48 hours",
            Span::Week => "7 days",
        }
    }

    /// The value in the address.
    pub fn value(self) -> &'static str {
        match self {
            Span::Day => "1d",
            Span::TwoDays => "2d",
            Span::Week => "7d",
        }
    }

    fn is_default(&self) -> bool {
        *self == Span::default()
    }
}

impl Sort {
    pub const ALL: [Sort; 4] = [Sort::Failed, Sort::Removable, Sort::Oldest, Sort::Name];

    pub fn words(self) -> &'static str {
        match self {
            Sort::Failed => "most in scope",
            Sort::Removable => "most removable",
            Sort::Oldest => "oldest",
            Sort::Name => "name",
        }
    }

    /// The value in the address.
    pub fn value(self) -> &'static str {
        match self {
            Sort::Failed => "failed",
            Sort::Removable => "removable",
            Sort::Oldest => "oldest",
            Sort::Name => "name",
        }
    }

    fn is_default(&self) -> bool {
        *self == Sort::default()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The address of the page about a target itself.
pub fn target_page(target: &str) -> String {
    format!("/target?{}", serde_urlencoded::to_string([("target", target)]).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Query, Sort};

    #[test]
    fn a_link_has_only_what_is_not_the_default_and_escapes_it() {
        let query = Query { search: "cats & <dogs>".into(), ..Query::default() };
        assert_eq!(query.link(|query| query.search.clear()), "/");
        assert_eq!(query.link(|query| query.sort = Sort::Name), "/?search=cats+%26+%3Cdogs%3E&sort=name");
    }
}
