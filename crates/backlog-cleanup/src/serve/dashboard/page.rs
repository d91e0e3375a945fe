//! The frame of all pages, and the order of the sections.

use backlog_cleanup_report::Level;
use maud::{DOCTYPE, Markup, html};

use super::data::Data;
use super::{actions, failures, health, next, progress, recipes, removals, runs};
use crate::serve::app::App;
use crate::serve::middleware::Caller;

/// Who looks at a page.
pub struct Viewer {
    /// `None` before the login.
    level: Option<Level>,
    /// False if there is no session to end.
    can_sign_out: bool,
}

impl Viewer {
    pub fn of(app: &App, caller: &Caller) -> Viewer {
        Viewer { level: Some(caller.level), can_sign_out: app.keyring().everybody.is_none() }
    }

    pub fn nobody() -> Viewer {
        Viewer { level: None, can_sign_out: false }
    }
}

/// A page with the sections of `body`.
pub fn document(title: &str, viewer: &Viewer, body: Markup) -> Markup {
    with_head(title, viewer, html! {}, body)
}

fn with_head(title: &str, viewer: &Viewer, head: Markup, body: Markup) -> Markup {
    let version = env!("CARGO_PKG_VERSION");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                (head)
                link rel="icon" href={ "/assets/icon.svg?" (version) } type="image/svg+xml";
                link rel="stylesheet" href={ "/assets/style.css?" (version) };
                script src={ "/assets/script.js?" (version) } defer {}
            }
            body {
                a .skip href="#main" { "Skip to the content" }
                header {
                    a .name href="/" { "backlog cleanup" }
                    @if let Some(level) = &viewer.level { span .muted { (level.as_str()) } }
                    @if viewer.can_sign_out {
                        form action="/logout" method="post" { button type="submit" { "Sign out" } }
                    }
                }
                main #main { (body) }
            }
        }
    }
}

/// The dashboard.
pub fn dashboard(data: &Data, viewer: &Viewer) -> Markup {
    let (light, _) = health::of(data);
    let may_run = viewer.level >= Some(Level::Operator);
    let title = format!("{} {} failed, {}", sign(light), data.status.statuses.of("failed"), data.target);
    // Without the script the page reloads while a run is running.
    let head = html! { @if data.running().is_some() { noscript { meta http-equiv="refresh" content="3"; } } };
    with_head(
        &title,
        viewer,
        head,
        html! {
            h1 .hidden { "Backlog of " (data.target) }
            p #stale .card .danger role="alert" hidden {}
            (targets(data))
            (health::section(data))
            (runs::asked(data))
            (progress::section(data.running(), &data.target, may_run))
            div .columns {
                (failures::section(data))
                div .stack {
                    (actions::section(data, may_run))
                    (next::section(data))
                }
            }
            (recipes::section(data))
            (removals::section(data))
            (runs::section(data))
        },
    )
}

/// The light in the title, so that the tab shows it.
fn sign(light: health::Light) -> &'static str {
    match light {
        health::Light::Green => "✓",
        health::Light::Amber => "!",
        health::Light::Red => "✕",
    }
}

fn targets(data: &Data) -> Markup {
    html! {
        @if data.targets.len() > 1 {
            nav .choice aria-label="targets" {
                @for target in &data.targets {
                    a href=(super::query::Query { target: target.clone(), ..Default::default() }.link(|_| ()))
                        aria-current=[(*target == data.target).then_some("page")] { (target) }
                }
            }
        }
    }
}
