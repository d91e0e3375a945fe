use axum::extract::Query;
use maud::{Markup, html};
use serde::Deserialize;

use super::page::{self, Viewer};

#[derive(Default, Deserialize)]
pub struct Next {
    #[serde(default)]
    next: String,
}

/// The form for a token, with the path to go to then.
pub async fn form(Query(Next { next }): Query<Next>) -> Markup {
    page(&next, None)
}

/// The form, with what was wrong with the last token.
pub fn page(next: &str, refused: Option<&str>) -> Markup {
    let body = html! {
        section #login .card aria-labelledby="login-title" {
            h1 #login-title { "Sign in" }
            @if let Some(refused) = refused { p #alert .reason role="alert" { (refused) } }
            form action="/login" method="post" {
                input type="hidden" name="next" value=(next);
                label for="token" { "Token" }
                input #token name="token" type="password" required autocomplete="current-password" autofocus;
                div .buttons { button .primary type="submit" { "Sign in" } }
            }
            p .note { "Ask your administrator for a token." }
        }
    };
    page::document("Sign in", &Viewer::nobody(), body)
}
