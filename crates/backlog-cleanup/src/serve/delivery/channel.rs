use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::outage::ends_of_others;
use super::{POLL, REMINDER, in_time, until};
use crate::channel::{Change, Channel, Content, LONGEST, Message, Told, Undelivered, id};
use crate::client::{calls, deliveries, targets};
use crate::failure::Failure;
use crate::serve::app::App;

/// Between two messages to a channel: what comes meanwhile goes together.
const SPACING: Duration = Duration::from_secs(30);
/// After the first failure; twice as long after each one more.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// Longer than a message takes, so that no other server sends it at the same time.
const LEASE: Duration = Duration::from_secs(LONGEST.as_secs() + 30);

/// What is sent at once.
struct Parcel {
    message: Arc<Message>,
    /// The message of the database, if it is one.
    recorded: Option<String>,
    failures: i32,
    report_at: Option<DateTime<Utc>>,
    remark: Option<String>,
    /// Whether there is nothing else in it than ends of outages.
    is_of_start: bool,
}

/// What is known from round to round.
#[derive(Default)]
struct Known {
    /// What is wrong with the channel, although it takes what it is sent.
    remark: Option<String>,
    /// Whether what the channel has refused by the settings before has had its other chance.
    has_reconsidered: bool,
    /// Whether the receiver is still to be told that there is no outage: one that has stopped may have told it of one.
    owes_ends: bool,
}

/// Delivers to a channel what is due, and waits for more.
pub async fn serve(app: Arc<App>, channel: Arc<Channel>, mut heard: watch::Receiver<()>, ends: CancellationToken) {
    let server = app.name.clone();
    let mut known = Known { owes_ends: channel.has_incidents(), ..Known::default() };
    let mut was_away = false;
    while !ends.is_cancelled() {
        heard.borrow_and_update();
        let wait = match round(&app, &channel, &server, &mut known).await {
            Ok(wait) => {
                was_away = false;
                *app.refusal.lock() = None;
                wait
            }
            Err(failure) => {
                if !was_away {
                    tracing::warn!(channel = channel.name, "deliveries wait: {}", failure.message);
                }
                was_away = true;
                // Whoever watches the database tells the channels, also if it only refuses what deliveries take.
                if failure.is_of_database() {
                    *app.refusal.lock() = Some(failure.message);
                }
                POLL.min(app.settings.unreachable_after / 2)
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
async fn round(app: &App, channel: &Arc<Channel>, server: &str, known: &mut Known) -> Result<Duration, Failure> {
    let parcel = match in_time(app, take(app, channel, server, known)).await? {
        Taken::Parcel(parcel) => parcel,
        Taken::Nothing(wait) => return Ok(wait),
    };
    let sent = Arc::clone(channel).send(Arc::clone(&parcel.message)).await;
    // If that takes too long, it is sent again when the lease is over.
    in_time(app, record(app, channel, server, &parcel, &sent)).await?;
    // What is not taken is sent again.
    if sent.as_ref().err().is_none_or(|failed| failed.is_final) {
        known.owes_ends = false;
    }
    let (channel, id) = (&channel.name, &parcel.message.id);
    match sent {
        Ok(()) => tracing::info!(channel, id, "delivered"),
        Err(failed) => tracing::warn!(channel, id, "not delivered: {}", failed.why),
    }
    Ok(Duration::ZERO)
}

enum Taken {
    Parcel(Parcel),
    Nothing(Duration),
}

/// Takes the lease, and what is due.
async fn take(app: &App, channel: &Channel, server: &str, known: &mut Known) -> Result<Taken, Failure> {
    let access = app.deliverer()?;
    let mut work = access.begin().await?;
    let name = channel.name.as_str();
    let is_first = app.channels.borrow().is_first(name);
    let is_turn = is_first && deliveries::is_first_of_minute(&mut work, name).await?;
    let lease = deliveries::lease(&mut work, (name, &channel.kind), server, LEASE, LONGEST_BACKOFF).await?;
    let Some(lease) = lease else {
        let wait = deliveries::wait(&mut work, name).await?.unwrap_or_default();
        return Ok(Taken::Nothing(Duration::from_secs_f64(wait.clamp(0.05, POLL.as_secs_f64()))));
    };
    if is_turn {
        app.turn.notify_one();
    }
    if !known.has_reconsidered {
        deliveries::reconsider(&mut work, name).await?;
    }
    let remark = remark(&targets::missing(&mut work, &channel.targets).await?);
    // What was missed is due, by whatever schedule. What is to come is by the one that the file has now.
    let missed = lease.report_at.filter(|at| *at <= lease.now);
    let report_at = channel.report.as_ref().and_then(|report| missed.or_else(|| report.after(lease.now)));
    let recorded =
        deliveries::take_on(&mut work, name, &channel.targets, channel.most(), channel.has_incidents()).await?;
    let mut due = match &recorded {
        Some(id) => deliveries::attempt(&mut work, name, id).await?,
        None => Vec::new(),
    };
    // With what is new, so that neither waits for the other.
    if channel.forgets() {
        let open = deliveries::forgotten(&mut work, name, REMINDER).await?;
        due.extend(open.into_iter().map(|alert| (Change::Opened.as_str().to_owned(), alert)));
    }
    let told = due.into_iter().map(|(change, alert)| Told { change: Change::of(&change), alert });
    let mut told: Vec<Told> = told.collect();
    let is_of_start = told.is_empty() && known.owes_ends;
    if known.owes_ends {
        told.extend(ends_of_others());
    }
    let database = app.database();
    let is_report_due = report_at.is_some_and(|at| at <= lease.now);
    let content = match told.is_empty() {
        false => Some(Content::Alerts(told)),
        true if is_report_due => report(&mut work, channel).await?,
        true => None,
    };
    if content.is_none() {
        // A report of no target is not sent.
        let next = channel.report.as_ref().filter(|_| is_report_due).and_then(|report| report.after(lease.now));
        deliveries::nothing(&mut work, name, server, next.or(report_at), remark.as_deref()).await?;
    }
    work.commit().await?;
    known.has_reconsidered = true;
    if let Some(remark) = remark.as_ref().filter(|_| remark != known.remark) {
        tracing::warn!(channel = name, "{remark}");
    }
    known.remark.clone_from(&remark);
    let Some(content) = content else { return Ok(Taken::Nothing(POLL)) };
    let own_id = || match (&content, report_at) {
        (Content::Report { .. }, Some(due)) => id("report", &database, name, due),
        _ => id("reminder", &database, name, lease.now),
    };
    let message = Message { id: recorded.clone().unwrap_or_else(own_id), database: database.clone(), content };
    let failures = lease.failures;
    Ok(Taken::Parcel(Parcel { message: Arc::new(message), recorded, failures, report_at, remark, is_of_start }))
}

/// What is wrong with a channel for targets that do not exist.
fn remark(missing: &[String]) -> Option<String> {
    match missing {
        [] => None,
        [name] => Some(format!("it is for target \"{name}\", which does not exist")),
        names => Some(format!("it is for targets \"{}\", which do not exist", names.join("\", \""))),
    }
}

/// Records what became of a message, and gives the lease back.
async fn record(
    app: &App,
    channel: &Channel,
    server: &str,
    parcel: &Parcel,
    sent: &Result<(), Undelivered>,
) -> Result<(), Failure> {
    let access = app.deliverer()?;
    let mut work = access.begin().await?;
    let name = channel.name.as_str();
    let failed = sent.as_ref().err();
    let mut has_taken = failed.is_none();
    if let Content::Alerts(told) = &parcel.message.content {
        let taken = told.iter().filter(|told| failed.is_none_or(|failed| failed.taken.contains(&told.alert.id)));
        let (alerts, changes): (Vec<i64>, Vec<&str>) = taken.map(|told| (told.alert.id, told.change.as_str())).unzip();
        has_taken = !alerts.is_empty();
        deliveries::taken(&mut work, name, &alerts, &changes).await?;
    }
    let is_done = failed.is_none_or(|failed| failed.is_final);
    let report_at = match (&channel.report, &parcel.message.content) {
        (Some(report), Content::Report { .. }) if is_done => report.after(Utc::now()),
        _ => parcel.report_at,
    };
    match failed {
        None => {
            // What it is told when a server starts keeps back nothing.
            let spacing = if parcel.is_of_start { Duration::ZERO } else { SPACING };
            deliveries::delivered(&mut work, name, server, report_at, parcel.remark.as_deref(), spacing).await?
        }
        Some(failed) => {
            if let Some(message) = parcel.recorded.as_deref().filter(|_| failed.is_final) {
                deliveries::refused(&mut work, name, message, &failed.why).await?;
            }
            // What is done with keeps back the next no longer than what was taken.
            let longest = if failed.is_final { SPACING } else { LONGEST_BACKOFF };
            let backoff = backoff(parcel.failures).min(longest);
            deliveries::failed(&mut work, name, server, (&failed.why, has_taken), report_at, backoff).await?;
        }
    }
    Ok(work.commit().await?)
}

/// The report of the channel's targets, or of all; `None` if there is none of them.
async fn report(work: &mut PgConnection, channel: &Channel) -> sqlx::Result<Option<Content>> {
    let named = targets::names(work).await?;
    let is_meant = |name: &&String| channel.targets.is_empty() || channel.targets.contains(name);
    let (mut text, mut markdown) = (String::new(), String::new());
    for name in named.iter().filter(is_meant) {
        text += &calls::report(work, calls::WEEK, name, "text").await?;
        markdown += &calls::report(work, calls::WEEK, name, "markdown").await?;
        text.push('\n');
        markdown.push('\n');
    }
    Ok((!text.is_empty()).then_some(Content::Report { text, markdown }))
}

fn backoff(failures: i32) -> Duration {
    (FIRST_BACKOFF * 2_u32.pow(failures.clamp(0, 16) as u32)).min(LONGEST_BACKOFF)
}
