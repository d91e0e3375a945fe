//! How fast a batched run goes whose call and target name no pause. While nobody else writes it goes as fast as it can. While others do, it
//! works for a short time, leaves the server to them for several times as long, and has its last batch on the disk before the next.

use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::Once;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::pg_sys::{SubXactEvent, XactEvent};

use crate::history::run::Run;

/// How long a batch is to take beside others, with its way to the disk.
const BATCH: Duration = Duration::from_millis(10);
/// How many times as long as its batch a pause is, and how long at least.
const REST: (u32, Duration) = (3, Duration::from_millis(50));
/// Rows of the smallest batch beside others, which is the first, and of the largest.
const ROWS: (i64, i64) = (500, 1_000);
/// How long others count as at work after they have written.
const OTHERS: Duration = Duration::from_secs(1);

/// What a process remembers of its run from one batch to the next.
#[derive(Clone, Copy)]
struct Tempo {
    run_id: i64,
    /// Rows of the next batch beside others.
    rows: i64,
    /// The transaction ids that other processes had taken.
    taken: u64,
    /// When others were last seen to take one.
    others: Option<Instant>,
    /// How long the last batch took.
    took: Option<Duration>,
}

thread_local! {
    static TEMPO: Cell<Option<Tempo>> = const { Cell::new(None) };
    /// The transaction ids that this process has taken since it listens.
    static OWN: Cell<u64> = const { Cell::new(0) };
}

/// Whether the run finds its pace itself. Workers were asked for by who wants it fast.
fn is_free(run: &Run) -> bool {
    run.pause.is_none() && run.workers == 0
}

impl Tempo {
    fn of(run: &Run) -> Tempo {
        listen();
        let new = || Tempo { run_id: run.id, rows: ROWS.0, taken: taken_by_others(), others: None, took: None };
        TEMPO.get().filter(|tempo| tempo.run_id == run.id).unwrap_or_else(new)
    }

    fn is_beside_others(&self) -> bool {
        self.others.is_some_and(|seen| seen.elapsed() < OTHERS)
    }
}

/// Sets the size of the run's next batch. Beside others, the last one is on the disk then.
pub fn before_batch(run: &mut Run) {
    if !is_free(run) {
        return;
    }
    let mut tempo = Tempo::of(run);
    let taken = taken_by_others();
    if taken > tempo.taken {
        (tempo.others, tempo.taken) = (Some(Instant::now()), taken);
    }
    if tempo.is_beside_others() {
        if let Some(took) = tempo.took.take() {
            let started = Instant::now();
            // SAFETY: as a commit does it. Commits of others have mostly done it meanwhile.
            unsafe { pg_sys::XLogFlush(pg_sys::XactLastCommitEnd) };
            let is_slow = took + started.elapsed() > BATCH;
            let rows = if is_slow { tempo.rows / 2 } else { tempo.rows + tempo.rows / 4 };
            tempo.rows = rows.clamp(ROWS.0, ROWS.1);
        }
        run.batch_size = run.batch_size.min(tempo.rows);
    }
    TEMPO.set(Some(tempo));
}

/// How long the run leaves the server to others after a batch that began then.
pub fn after_batch(run: &Run, started: Instant) -> Duration {
    if !is_free(run) {
        return Duration::from_secs_f64(run.pause.unwrap_or_default());
    }
    let (took, tempo) = (started.elapsed(), Tempo::of(run));
    TEMPO.set(Some(Tempo { took: Some(took), ..tempo }));
    if tempo.is_beside_others() { (took * REST.0).max(REST.1) } else { Duration::ZERO }
}

/// The transaction ids that other processes have taken, counted from any number.
fn taken_by_others() -> u64 {
    // SAFETY: takes a lock of PostgreSQL for a moment.
    let next = unsafe { pg_sys::ReadNextFullTransactionId().value };
    next - OWN.get()
}

fn listen() {
    static ONCE: Once = Once::new();
    // SAFETY: the callbacks live as long as the library, which is never unloaded.
    ONCE.call_once(|| unsafe {
        pg_sys::RegisterXactCallback(Some(at_end), null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_end_of_subtransaction), null_mut());
    });
}

unsafe extern "C-unwind" fn at_end(event: XactEvent::Type, _: *mut core::ffi::c_void) {
    if matches!(event, XactEvent::XACT_EVENT_PRE_COMMIT | XactEvent::XACT_EVENT_ABORT) {
        count_own();
    }
}

unsafe extern "C-unwind" fn at_end_of_subtransaction(
    event: SubXactEvent::Type,
    _: pg_sys::SubTransactionId,
    _: pg_sys::SubTransactionId,
    _: *mut core::ffi::c_void,
) {
    // Those of one that is committed are its parent's.
    if event == SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        count_own();
    }
}

/// Counts the transaction ids of the (sub)transaction that ends.
fn count_own() {
    // SAFETY: reads the state of the transaction.
    unsafe {
        if pg_sys::GetCurrentTransactionIdIfAny() != pg_sys::InvalidTransactionId {
            let mut children = null_mut();
            OWN.set(OWN.get() + 1 + pg_sys::xactGetCommittedChildren(&mut children) as u64);
        }
    }
}
