//! The warnings of the database, as part of an answer. sqlx hands them to the log only.

use std::cell::RefCell;
use std::fmt;

use tokio::task_local;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

task_local! {
    static HEARD: RefCell<Vec<String>>;
}

/// Does some work, and collects the warnings that the database raises meanwhile.
pub async fn heard<T>(work: impl Future<Output = T>) -> (T, Vec<String>) {
    HEARD.scope(RefCell::default(), async { (work.await, HEARD.with(RefCell::take)) }).await
}

/// The layer of the log through which warnings come here.
pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    Warnings.with_filter(Targets::new().with_target("sqlx::postgres::notice", Level::WARN))
}

struct Warnings;

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Outside of `heard` nobody asks for them.
        HEARD.try_with(|heard| event.record(&mut Message(&mut heard.borrow_mut()))).ok();
    }
}

struct Message<'a>(&'a mut Vec<String>);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.push(format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0.push(value.to_owned());
        }
    }
}
