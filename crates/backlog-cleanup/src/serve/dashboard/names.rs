//! Names of the database: long ones are cut, with the whole name as the tool tip.

use maud::{Markup, html};
use serde_json::Value;

use crate::words;

/// The longest name that is left to wrap.
const SHORT: usize = 24;

pub fn name(name: &str) -> Markup {
    if name.chars().count() > SHORT {
        cut(name)
    } else {
        html! { bdi { (name) } }
    }
}

/// A name that takes no more than its place, which the style sheet gives.
pub fn cut(name: &str) -> Markup {
    html! { bdi .cut title=(name) { (name) } }
}

/// A recipe's name, and its id unless that is the name.
pub fn recipe(name: &str, id: &Value) -> Markup {
    let id = words::recipe_id(id);
    html! { (self::name(name)) @if id != name { " " span .muted { (self::name(&id)) } } }
}
