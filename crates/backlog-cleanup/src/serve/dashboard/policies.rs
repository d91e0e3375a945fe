//! The policies, with their rows in the last regular run; the forms that try another one and explain a row. The forms are plain
//! HTML.

use backlog_cleanup_report::{Nouns, capitalized, plural};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::data::Data;
use super::names::name;
use crate::client::policies::{DEFAULT, Names, Policy, Values};
use crate::serve::response::Problem;
use crate::words;

/// The number of policies that the page lists.
const LISTED: usize = 20;

/// Typed as the maximal age of the newest rows, and as the note, take those back.
const OFF: &str = "off";
const NONE: &str = "none";

/// A policy as a form has it. Of its names, one that is missing is any; of what it says, an empty text stays as it is.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    pub target: String,
    recipe: Option<String>,
    failure_type: Option<String>,
    status: Option<String>,
    /// `true` if somebody has typed the names: then an empty one is any, too.
    #[serde(skip_serializing)]
    typed: bool,
    pub max_age: String,
    pub keep: String,
    pub max_keep_age: String,
    /// `true`, or `false` for a hold.
    pub enabled: String,
    pub note: String,
}

impl Asked {
    pub fn of(target: &str, policy: &Policy) -> Asked {
        let Names { recipe_id, failure_type, status } = policy.names.clone();
        Asked {
            target: target.into(),
            recipe: recipe_id,
            failure_type,
            status,
            typed: false,
            max_age: policy.max_age.clone(),
            keep: policy.keep.to_string(),
            max_keep_age: policy.max_keep_age.clone().unwrap_or_default(),
            enabled: policy.enabled.to_string(),
            note: policy.note.clone().unwrap_or_default(),
        }
    }

    pub fn names(&self) -> Names {
        let read = |name: &Option<String>| if self.typed { name.as_deref().and_then(given) } else { name.clone() };
        Names { recipe_id: read(&self.recipe), failure_type: read(&self.failure_type), status: read(&self.status) }
    }

    /// The fields of a form that have its names.
    fn hidden_names(&self) -> Markup {
        let Names { recipe_id, failure_type, status } = self.names();
        html! {
            @for (name, value) in [("recipe", recipe_id), ("failure_type", failure_type), ("status", status)] {
                @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
            }
        }
    }

    /// The address of a page about the policy.
    pub fn link(&self, path: &str) -> String {
        format!("{path}?{}", serde_urlencoded::to_string(self).unwrap_or_default())
    }

    /// The fields of a form that says the same without being filled in.
    pub fn hidden(&self) -> Markup {
        html! {
            (self.hidden_names())
            @for (name, value) in [
                ("target", &self.target), ("max_age", &self.max_age), ("keep", &self.keep), ("max_keep_age", &self.max_keep_age),
                ("enabled", &self.enabled), ("note", &self.note),
            ] {
                input type="hidden" name=(name) value=(value);
            }
        }
    }

    /// Errors: 400.
    pub fn values(&self) -> Result<Values, Problem> {
        let keep = given(&self.keep).map(|keep| {
            keep.parse().map_err(|_| Problem::bad_request(format!("\"{keep}\" is not a number of rows")).hint("10"))
        });
        Ok(Values {
            max_age: given(&self.max_age),
            keep: keep.transpose()?,
            max_keep_age: given(&self.max_keep_age).filter(|age| age != OFF),
            no_max_keep_age: self.max_keep_age.trim() == OFF,
            enabled: given(&self.enabled).map(|enabled| enabled == "true"),
            note: given(&self.note).map(|note| if note == NONE { String::new() } else { note }),
        })
    }
}

fn given(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// With `may_write` there are links to drop policies.
pub fn section(data: &Data, may_write: bool) -> Markup {
    html! {
        section #policies .card aria-labelledby="policies-title" {
            h2 #policies-title { "Policies" }
            div .scroll tabindex="0" role="region" aria-label="policies, the table" { (table(data, may_write)) }
            @if data.policies.len() > LISTED {
                p .note { "and " (words::number((data.policies.len() - LISTED) as i64)) " more; the command " code { "backlog-cleanup policy list" } " has all." }
            }
            div .forms {
                details #try-policy {
                    summary { "Try a policy" }
                    (form(&Asked { target: data.target.clone(), ..Asked::default() }, data.nouns()))
                    p .note { "A simulation changes nothing." }
                }
                details #why {
                    summary { "Why does one " (data.nouns().row_word) " stay or go?" }
                    (explain_form(&data.target, "", data.nouns()))
                }
            }
        }
    }
}

fn table(data: &Data, may_write: bool) -> Markup {
    let known = |figure: Option<i64>| figure.map_or("–".into(), words::number);
    html! {
        table .policies {
            thead {
                tr {
                    th scope="col" { "policy" }
                    th scope="col" { "state" }
                    th scope="col" .figure { "max age" }
                    th scope="col" .figure { "keep" }
                    th scope="col" .figure { "max keep age" }
                    th scope="col" .figure { "in scope" }
                    th scope="col" .figure { "removed" }
                    th scope="col" { span .hidden { "change" } }
                }
            }
            tbody {
                @for policy in data.policies.iter().take(LISTED) {
                    tr {
                        th scope="row" { (name(&policy.policy)) @if let Some(note) = &policy.note { " " span .muted { (name(note)) } } }
                        td { (policy.state()) }
                        td .figure { (policy.max_age) }
                        td .figure { (words::number(policy.keep.into())) }
                        td .figure { (policy.max_keep_age.as_deref().unwrap_or("–")) }
                        td .figure { (known(policy.in_scope)) }
                        td .figure { (known(policy.removed)) }
                        @let asked = Asked::of(&data.target, policy);
                        td .links {
                            a href=(asked.link("/simulate")) aria-label={ "change policy " (policy.policy) } { "Change…" }
                            @if may_write && policy.policy != DEFAULT {
                                " " a href=(asked.link("/drop")) aria-label={ "drop policy " (policy.policy) } { "Drop…" }
                            }
                        }
                    }
                }
            }
        }
        @if let Some(run) = data.policies.iter().find_map(|policy| policy.run_id) {
            p .note { "In scope before run " (run) ", the last regular one, and removed by it." }
        }
    }
}

/// The form that leads to a simulation.
pub fn form(asked: &Asked, nouns: &Nouns) -> Markup {
    let Nouns { group_word, row_word } = nouns;
    let by_id = format!("{}, by its id", capitalized(group_word));
    let keep = format!("Keep, newest per {group_word}");
    let field = |id: &str, key: &str, label: &str, value: &str, hint: &str| {
        html! {
            div {
                label for=(id) { (label) }
                input #(id) name=(key) value=(value) placeholder=(hint) autocomplete="off" spellcheck="false";
            }
        }
    };
    let names = asked.names();
    let Names { recipe_id, failure_type, status } = &names;
    // Nobody can type that a name is empty, or has blanks around it.
    let can_be_typed =
        [recipe_id, failure_type, status].into_iter().flatten().all(|name| given(name).as_ref() == Some(name));
    let typed = |id: &str, key: &str, label: &str, value: &Option<String>| {
        field(id, key, label, value.as_deref().unwrap_or_default(), "any")
    };
    html! {
        form action="/simulate" method="get" {
            input type="hidden" name="target" value=(asked.target);
            fieldset {
                legend { "For " (plural(row_word)) " of" }
                @if can_be_typed {
                    input type="hidden" name="typed" value="true";
                    (typed("policy-recipe", "recipe", &by_id, recipe_id))
                    (typed("policy-failure-type", "failure_type", "Failure type", failure_type))
                    (typed("policy-status", "status", "Status", status))
                } @else {
                    (asked.hidden_names())
                    p { (name(&names.words(group_word))) }
                }
            }
            fieldset {
                legend { "What stays" }
                (field("policy-max-age", "max_age", "Max age", &asked.max_age, "24 hours"))
                (field("policy-keep", "keep", &keep, &asked.keep, "10"))
                (field("policy-max-keep-age", "max_keep_age", "Max keep age", &asked.max_keep_age, OFF))
                div {
                    label for="policy-enabled" { "State" }
                    select #policy-enabled name="enabled" {
                        @for (value, word) in [("", "as it is"), ("true", "enabled"), ("false", "hold")] {
                            option value=(value) selected[asked.enabled == value] { (word) }
                        }
                    }
                }
                (field("policy-note", "note", "Note, for people", &asked.note, NONE))
            }
            p .note { "An empty field leaves what is there, or has the default of a new policy. The words off and none take a max keep age and a note back." }
            div .buttons { button .primary type="submit" { "Simulate" } }
        }
    }
}

/// The form that leads to the explanation of a row.
pub fn explain_form(target: &str, id: &str, nouns: &Nouns) -> Markup {
    html! {
        form action="/explain" method="get" {
            input type="hidden" name="target" value=(target);
            label for="row" { "Id of the " (nouns.row_word) }
            input #row name="id" value=(id) required autocomplete="off" spellcheck="false";
            div .buttons { button type="submit" { "Explain" } }
        }
    }
}
