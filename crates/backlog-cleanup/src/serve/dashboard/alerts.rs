//! The alerts that are open, and who takes them on.

use axum::Form;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::data::Data;
use super::query::Query;
use super::times;
use crate::client::alerts::Alert;
use crate::serve::api::alerts::{put_off, take_on};
use crate::serve::middleware::Caller;
use crate::serve::response::Problem;
use crate::words;

/// What to do with an alert: nothing but take it on, if `snooze` is empty.
#[derive(Deserialize)]
pub struct Act {
    target: String,
    alert: i64,
    #[serde(default)]
    snooze: String,
}

/// Acknowledges or snoozes an alert, and shows those that are open. Errors: those of the admin API.
pub async fn act(caller: Caller, Form(Act { target, alert, snooze }): Form<Act>) -> Result<Redirect, Problem> {
    match snooze.as_str() {
        "" => take_on(&caller, alert, None).await?,
        interval => put_off(&caller, alert, interval, None).await.map(drop)?,
    }
    Ok(Redirect::to(&(Query { target, ..Query::default() }.link(|_| ()) + "#alerts")))
}

/// Nothing if none is open.
pub fn section(data: &Data, may_act: bool) -> Markup {
    html! {
        @if !data.alerts.is_empty() {
            section #alerts .card aria-labelledby="alerts-title" {
                h2 #alerts-title { (words::count(data.alerts.len() as i64, "open alert")) }
                ul .reasons { @for alert in &data.alerts { (item(alert, data, may_act)) } }
            }
        }
    }
}

fn item(alert: &Alert, data: &Data, may_act: bool) -> Markup {
    let state = alert.state();
    html! {
        li {
            span class={ "tag " (if state == "open" { "fail" } else { "warn" }) } { (state) }
            " " (alert.sentence) " "
            span .muted {
                "Since " (times::ago(alert.opened_at, data.now))
                @if let Some(role) = &alert.acknowledged_by { ", " bdi { (role) } " has taken it on" }
                @if let (Some(until), "snoozed") = (alert.snoozed_until, state) { ", snoozed until " (times::clock(until)) }
                @if let Some(note) = &alert.note { ": " bdi { (note) } }
                "."
            }
            @if let Some(fix) = &alert.fix {
                div .fix {
                    pre { code { (fix) } }
                    button .copy type="button" { "Copy" }
                }
            }
            @if may_act {
                form .act action="/alert" method="post" {
                    input type="hidden" name="target" value=(data.target);
                    input type="hidden" name="alert" value=(alert.id);
                    div .buttons {
                        @if alert.acknowledged_at.is_none() {
                            button type="submit" name="snooze" value="" aria-label={ "Acknowledge alert " (alert.id) } { "Acknowledge" }
                        }
                        @for (interval, words) in [("1 hour", "1 h"), ("8 hours", "8 h"), ("1 day", "1 day")] {
                            button type="submit" name="snooze" value=(interval) aria-label={ "Snooze alert " (alert.id) " for " (interval) } {
                                "Snooze " (words)
                            }
                        }
                    }
                }
            }
        }
    }
}
