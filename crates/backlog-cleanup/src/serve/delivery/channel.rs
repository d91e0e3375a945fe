use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgConnection;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::until;
use crate::channel::{Change, Channel, Content, LONGEST, Message, Told};
use crate::client::{calls, deliveries, targets};
use crate::failure::Failure;
use crate::serve::access::PATIENCE;
use crate::serve::app::App;

/// How often to look for what was not heard of.
pub const POLL: Duration = Duration::from_secs(10);
/// Between two messages to a channel: what comes meanwhile goes together.
const SPACING: Duration = Duration::from_secs(30);
/// How often a receiver that forgets is told of what is still open.
const REMINDER: TimeDelta = TimeDelta::seconds(60);
/// After the first failure; twice as long after each one more.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// Longer than a message takes, so that no other server sends it at the same time.
const LEASE: Duration = Duration::from_secs(LONGEST.as_secs() + 30);

/// What is sent at once.
struct Parcel {
    message: Message,
    /// The message of the database, if it is one.
    recorded: Option<String>,
    /// Whether it is the report that was due.
    is_report: bool,
    failures: i32,
    report_at: Option<DateTime<Utc>>,
}

/// Delivers to a channel what is due, and waits for more.
pub async fn serve(app: Arc<App>, channel: Arc<Channel>, mut heard: watch::Receiver<()>, ends: CancellationToken) {
    let server = app.name.clone();
    let mut was_away = false;
    while !ends.is_cancelled() {
        heard.borrow_and_update();
        let wait = match round(&app, &channel, &server).await {
            Ok(wait) => {
                was_away = false;
                wait
            }
            Err(failure) => {
                // Whoever watches the database says so once.
                if !was_away {
                    tracing::warn!(channel = channel.name, "deliveries wait: {}", failure.message);
                }
                was_away = true;
                POLL
            }
        };
        let more = async {
            tokio::select! {
                () = sleep(wait) => (),
                Ok(()) = heard.changed() => (),
            }
        };
        until(&ends, more).await;
    }
}

/// Delivers one message, if one is due; returns how long to wait then.
async fn round(app: &App, channel: &Arc<Channel>, server: &str) -> Result<Duration, Failure> {
    let taken = timeout(2 * PATIENCE + app.settings.request_timeout, take(app, channel, server)).await;
    let taken = taken.map_err(|_| Failure::error("the database does not answer in time"))??;
    let parcel = match taken {
        Taken::Parcel(parcel) => parcel,
        Taken::Nothing(wait) => return Ok(wait),
    };
    let (recorded, id) = (parcel.recorded.as_deref(), parcel.message.id.clone());
    let sent = Arc::clone(channel).send(parcel.message).await;
    let access = app.deliverer()?;
    let mut work = access.begin().await?;
    let (name, failures) = (channel.name.as_str(), parcel.failures);
    let is_done = sent.as_ref().err().is_none_or(|failed| failed.is_final);
    let report_at = match &channel.report {
        Some(report) if parcel.is_report && is_done => report.after(Utc::now()),
        _ => parcel.report_at,
    };
    match &sent {
        Ok(()) => deliveries::delivered(&mut work, name, server, recorded, report_at, SPACING).await?,
        Err(failed) => {
            let why = (failed.why.as_str(), failed.is_final);
            deliveries::failed(&mut work, name, server, recorded, why, report_at, backoff(failures)).await?;
        }
    }
    work.commit().await?;
    match sent {
        Ok(()) => tracing::info!(channel = name, message = id, "delivered"),
        Err(failed) => tracing::warn!(channel = name, message = id, "not delivered: {}", failed.why),
    }
    Ok(Duration::ZERO)
}

enum Taken {
    Parcel(Parcel),
    Nothing(Duration),
}

/// Takes the lease, and what is due.
async fn take(app: &App, channel: &Channel, server: &str) -> Result<Taken, Failure> {
    let access = app.deliverer()?;
    let mut work = access.begin().await?;
    let name = channel.name.as_str();
    let lease = deliveries::lease(&mut work, (name, channel.kind()), server, LEASE).await?;
    let Some(lease) = lease else {
        let wait = deliveries::wait(&mut work, name).await?.unwrap_or_default();
        return Ok(Taken::Nothing(Duration::from_secs_f64(wait.clamp(0.05, POLL.as_secs_f64()))));
    };
    let report_at = channel.report.as_ref().and_then(|report| lease.report_at.or_else(|| report.after(lease.now)));
    let parcel = |message: Message, recorded: Option<String>, is_report| Parcel {
        message,
        recorded,
        is_report,
        failures: lease.failures,
        report_at,
    };
    let database = app.database();
    let message = |id: String, content| Message { id, database: database.clone(), content };
    if let Some(id) = deliveries::take_on(&mut work, name, &channel.targets).await? {
        let told = deliveries::attempt(&mut work, name, &id).await?;
        work.commit().await?;
        let change = |is_opening| if is_opening { Change::Opened } else { Change::Resolved };
        let told = told.into_iter().map(|(is_opening, alert)| Told { change: change(is_opening), alert }).collect();
        return Ok(Taken::Parcel(parcel(message(id.clone(), Content::Alerts(told)), Some(id), false)));
    }
    if let Some(due) = report_at.filter(|at| *at <= lease.now) {
        let content = report(&mut work, channel).await?;
        work.commit().await?;
        let id = format!("report-{}-{}", channel.name, due.timestamp());
        return Ok(Taken::Parcel(parcel(message(id, content), None, true)));
    }
    if channel.forgets() && lease.delivered_at.is_none_or(|at| lease.now - at >= REMINDER) {
        let open = deliveries::still_open(&mut work, name).await?;
        if !open.is_empty() {
            work.commit().await?;
            let told = open.into_iter().map(|alert| Told { change: Change::Opened, alert }).collect();
            let id = format!("reminder-{}", lease.now.timestamp());
            return Ok(Taken::Parcel(parcel(message(id, Content::Alerts(told)), None, false)));
        }
    }
    deliveries::nothing(&mut work, name, server, report_at).await?;
    work.commit().await?;
    Ok(Taken::Nothing(POLL))
}

/// The report of the channel's targets, or of all.
async fn report(work: &mut PgConnection, channel: &Channel) -> sqlx::Result<Content> {
    let named = targets::names(work).await?;
    let is_meant = |name: &&String| channel.targets.is_empty() || channel.targets.contains(name);
    let (mut text, mut markdown) = (String::new(), String::new());
    for name in named.iter().filter(is_meant) {
        text += &calls::report(work, "7 days", name, "text").await?;
        markdown += &calls::report(work, "7 days", name, "markdown").await?;
        text.push('\n');
        markdown.push('\n');
    }
    Ok(Content::Report { text, markdown })
}

fn backoff(failures: i32) -> Duration {
    (FIRST_BACKOFF * 2_u32.pow(failures.clamp(0, 16) as u32)).min(LONGEST_BACKOFF)
}
