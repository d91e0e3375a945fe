use maud::{Markup, html};

use super::page::{self, Viewer};

/// Asks for a token.
pub async fn form() -> Markup {
    page(None)
}

/// The same, with what was wrong with the last one.
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
            p .note { "Whoever runs this server has the file of tokens." }
        }
    };
    page::document("Sign in", &Viewer::nobody(), body)
}
