//! What somebody sees at first where counting takes long: what the last sample has counted.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::data::Tabs;
use super::health::sign;
use super::page::{Viewer, tabs, with_head};
use super::query::Query;
use super::times;
use crate::client::analytics::{self, LastCount};
use crate::serve::app::App;
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;
use crate::words;

/// The seconds that a page may take to count.
const PATIENCE: f64 = 1.0;

pub struct Glance {
    /// The address of the whole page.
    whole: String,
    target: String,
    tabs: Tabs,
    now: DateTime<Utc>,
    counted: LastCount,
}

impl Glance {
    /// `None` if the last count took no time, or no sample is young enough. Counts nothing.
    pub async fn read(app: &Arc<App>, caller: &Caller, query: &Query) -> Result<Option<Glance>, Problem> {
        let tabs = Tabs::read(app, caller).await?;
        let target = tabs.shown(query);
        if app.metrics.seconds(&target).is_some_and(|seconds| seconds < PATIENCE) {
            return Ok(None);
        }
        let counted = analytics::last_count(&mut *caller.begin().await?, &target).await?;
        let whole = query.link(|query| query.whole = true);
        Ok(counted.map(|counted| Glance { whole, target, tabs, now: Utc::now(), counted }))
    }

    /// The browser asks for the whole page at once, and shows this one until it comes.
    pub fn page(&self, viewer: &Viewer) -> Markup {
        let head = html! { meta http-equiv="refresh" content={ "0; url=" (self.whole) }; };
        let LastCount { sampled_at, in_scope, removable, oldest_at } = &self.counted;
        let title = format!("{} in scope, {}", words::number(*in_scope), self.target);
        let body = html! {
            h1 .hidden { "Backlog of " (self.target) }
            (tabs(&self.tabs, &self.target))
            section #glance .card aria-labelledby="glance-title" {
                div .headline {
                    @if let Some(light) = self.tabs.lights.get(&self.target) { (sign(*light, 48)) }
                    div {
                        h2 #glance-title { "Counting the rows" }
                        p .reason { "As of the last sample, " (times::ago(*sampled_at, self.now)) ":" }
                    }
                }
                dl .figures {
                    div { dt { "in scope" } dd { (words::number(*in_scope)) } }
                    div { dt { "removable" } dd { (words::number(*removable)) } }
                    div {
                        dt { "oldest in scope" }
                        dd { @match oldest_at { Some(at) => (times::ago(*at, self.now)), None => "none" } }
                    }
                }
                p .note { "The page comes when they are counted. " a href=(self.whole) { "Wait for it" } }
            }
        };
        with_head(&title, viewer, head, body)
    }
}
