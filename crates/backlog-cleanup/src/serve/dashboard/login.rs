use maud::{Markup, html};

use super::page::{self, Viewer};

/// The form for a token.
pub async fn form() -> Markup {
    page(None)
}

/// The form, with what was wrong with the last token.
pub fn page(refused: Option<&str>) -> Markup {
    let body = html! {
        section #login .card aria-labelledby="login-title" {
            h1 #login-title { "Sign in" }
            @if let Some(refused) = refused { p #alert .reason role="alert" { (refused) } }
            form action="/login" method="post" {
                label for="token" { "Token" }
                input #token name="token" type="password" required autocomplete="current-password" autofocus;
                div .buttons { button .primary type="submit" { "Sign in" } }
            }
            p .note { "Ask your administrator for a token." }
        }
    };
    page::document("Sign in", &Viewer::nobody(), body)
}
