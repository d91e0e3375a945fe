//! The frame of all pages, and the order of the sections.

use backlog_cleanup_report::Level;
use maud::{DOCTYPE, Markup, html};

use super::data::{Data, Tabs};
use super::names::name;
use super::query::Query;
use super::{actions, alerts, failures, health, next, policies, progress, recipes, removals, runs, trend};
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::shared::light::Light;

/// Who looks at a page, and at which database.
#[derive(Clone)]
pub struct Viewer {
    /// `None` before the login.
    level: Option<Level>,
    place: String,
    /// False if there is no session to end.
    can_sign_out: bool,
}

impl Viewer {
    pub fn of(app: &App, caller: &Caller) -> Viewer {
        Viewer { level: Some(caller.level), place: caller.place(), can_sign_out: app.keyring().everybody.is_none() }
    }

    pub fn nobody() -> Viewer {
        Viewer { level: None, place: String::new(), can_sign_out: false }
    }
}

/// A page with the sections of `body`.
pub fn document(title: &str, viewer: &Viewer, body: Markup) -> Markup {
    with_head(title, viewer, html! {}, body)
}

pub fn with_head(title: &str, viewer: &Viewer, head: Markup, body: Markup) -> Markup {
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
                    @if let Some(level) = &viewer.level { span .muted .place { (level.as_str()) ", database " (viewer.place) } }
                    @if viewer.level.is_some() { a href="/targets" { "Targets" } }
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
    let may_write = viewer.level >= Some(Level::Admin);
    let title = format!("{} {} in scope, {}", sign(light), data.status.statuses.of("failed"), data.target);
    // Without the script the page reloads while a run is running.
    let head = html! { @if data.running().is_some() { noscript { meta http-equiv="refresh" content="3"; } } };
    with_head(
        &title,
        viewer,
        head,
        html! {
            h1 .hidden { "Backlog of " (data.target) }
            p #stale .card .danger role="alert" hidden {}
            (tabs(&data.tabs, &data.target))
            (health::section(data))
            (alerts::section(data, may_run))
            (runs::asked(data))
            (progress::section(data, may_run))
            div .columns {
                (failures::section(data))
                div .stack {
                    (actions::section(data, may_run))
                    (next::section(data))
                }
            }
            (recipes::section(data))
            (policies::section(data, may_write))
            (trend::section(data))
            (removals::section(data))
            (runs::section(data))
        },
    )
}

/// The light in the title, so that the tab shows it.
fn sign(light: Light) -> &'static str {
    match light {
        Light::Green => "✓",
        Light::Amber => "!",
        Light::Red => "✕",
    }
}

/// A tab for each target with its light, if there are several; `shown` is the target of the page.
pub fn tabs(tabs: &Tabs, shown: &str) -> Markup {
    html! {
        @if tabs.targets.len() > 1 {
            section #targets {
                nav .choice .tabs aria-label="targets" {
                    @for target in &tabs.targets {
                        a href=(Query { target: target.clone(), ..Query::default() }.link(|_| ()))
                            aria-current=[(target == shown).then_some("page")] {
                            @if let Some(light) = tabs.lights.get(target) { (health::sign(*light, 16)) }
                            (name(target))
                        }
                    }
                }
            }
        }
    }
}
