//! Runs of all kinds beside a load that fails, retries and claims, for SECONDS. Triggers record every change; at the end a
//! checker that shares nothing with the extension replays the history.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Cluster, start_run};
use postgres::{Client, IsolationLevel};

use crate::random::{Random, setting};

const KEEP: usize = 3;

/// Each version of each row with the transaction that made it, each ledger row with its own, and a policy of seconds.
const RECORD: &str = "
    UPDATE backlog_cleanup.policy SET max_age = '2 seconds', keep = 3;
    CREATE TABLE version (n bigserial, xid text, id integer, account text, recipe integer, status text,
                          failed_at timestamp, gone boolean);
    CREATE TABLE paid (xid text, run_id bigint, amount bigint);
    CREATE TABLE ran (run_id bigint, seen text);
    CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE r generations := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    BEGIN
        INSERT INTO version (xid, id, account, recipe, status, failed_at, gone)
        VALUES (pg_current_xact_id()::text, r.id, r.user_id, r.recipe_id, r.status, r.updated_at, TG_OP = 'DELETE');
        RETURN NULL;
    END $$;
    CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON generations FOR EACH ROW EXECUTE FUNCTION record();
    CREATE FUNCTION pay() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO paid VALUES (pg_current_xact_id()::text, substring(NEW.description FROM 'run (\\d+)')::bigint, NEW.amount);
        RETURN NULL;
    END $$;
    CREATE TRIGGER pay AFTER INSERT ON credit_transactions FOR EACH ROW EXECUTE FUNCTION pay()";

/// What the platform does: fails, retries, claims, fails again, succeeds.
const LOAD: [&str; 5] = [
    "INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
     SELECT 'system_backlog', nullif(i % 6, 0), '', 'failed',
            now() AT TIME ZONE 'UTC' - random() * interval '4 seconds' FROM generate_series(1, 20) i",
    "UPDATE generations SET status = 'pending' WHERE id IN
        (SELECT id FROM generations WHERE status = 'failed' ORDER BY random() LIMIT 2)",
    "UPDATE generations SET user_id = 'somebody' WHERE id IN
        (SELECT id FROM generations WHERE status = 'failed' ORDER BY random() LIMIT 1)",
    "UPDATE generations SET status = 'failed', updated_at = now() AT TIME ZONE 'UTC' WHERE id IN
        (SELECT id FROM generations WHERE status = 'pending' ORDER BY random() LIMIT 2)",
    "UPDATE generations SET status = 'completed' WHERE id IN
        (SELECT id FROM generations WHERE status = 'pending' ORDER BY random() LIMIT 1)",
];

#[test]
fn a_history_of_runs_beside_a_load_breaks_no_promise() {
    let (seconds, seed) = (setting("SECONDS", 30), setting("SEED", 6));
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute(RECORD).unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    thread::scope(|scope| {
        for number in 0..2 {
            let (mut random, mut session) = (Random(seed + number), cluster.connect());
            scope.spawn(move || {
                while Instant::now() < end {
                    let statement = LOAD[random.below(LOAD.len() as u64) as usize];
                    match session.batch_execute(statement) {
                        Err(failure) if failure.code().is_none_or(|code| code.code() != "40P01") => {
                            panic!("{failure:?}")
                        }
                        _ => {}
                    }
                    thread::sleep(Duration::from_millis(random.below(60)));
                }
            });
        }
        for number in 2..4 {
            let (mut random, mut session) = (Random(seed + number), cluster.connect());
            scope.spawn(move || {
                while Instant::now() < end {
                    if let Err(failure) = run(&mut session, random.below(10)) {
                        // The other one runs, or the load was first.
                        let sqlstate = failure.code().map_or("", |code| code.code()).to_owned();
                        assert!(matches!(sqlstate.as_str(), "55P03" | "40P01" | "40001"), "{failure:?}");
                    }
                    thread::sleep(Duration::from_millis(random.below(20)));
                }
            });
        }
    });
    let figures = History::read(&mut client).check();
    println!("{seconds} seconds: {figures}");
}

/// One run of the kind of that number. Where it is in one snapshot from its start on, that is recorded.
fn run(session: &mut Client, kind: u64) -> Result<(), postgres::Error> {
    let plain = match kind {
        0 => "SELECT backlog_cleanup_failed_generations()",
        1 => "SELECT backlog_cleanup_failed_generations(dry_run => true)",
        2 => "SELECT backlog_cleanup_emergency(recipe_id => '3')",
        3 => "SELECT backlog_cleanup_emergency(dry_run => true)",
        4 => "CALL backlog_cleanup_run(batch_size => 5)",
        5 => "CALL backlog_cleanup_run(batch_size => 5, workers => 2)",
        6 => "CALL backlog_cleanup_run(mode => 'emergency', recipe_id => '4')",
        7 => return in_one_snapshot(session, "(backlog_cleanup_failed_generations() ->> 'runId')::bigint").map(drop),
        8 => {
            let run = "(backlog_cleanup_failed_generations(recipe_id => '2') ->> 'runId')::bigint";
            return in_one_snapshot(session, run).map(drop);
        }
        _ => {
            let id = in_one_snapshot(session, &format!("({})", start_run(5)))?;
            let next = "SELECT backlog_cleanup.next_batch($1) IS NULL";
            while !session.query_one(next, &[&id])?.get::<_, bool>(0) {}
            return session.execute("SELECT backlog_cleanup.finish_run($1)", &[&id]).map(drop);
        }
    };
    session.batch_execute(plain)
}

fn in_one_snapshot(session: &mut Client, run: &str) -> Result<i64, postgres::Error> {
    let mut transaction = session.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start()?;
    let started = transaction.query_one(&format!("SELECT pg_current_snapshot()::text, {run}"), &[])?;
    let (seen, id): (String, i64) = (started.get(0), started.get(1));
    transaction.execute("INSERT INTO ran VALUES ($1, $2)", &[&id, &seen])?;
    transaction.commit().map(|()| id)
}

struct Version {
    xid: u64,
    ours: bool,
    recipe: Option<i32>,
    failed: bool,
    /// Microseconds.
    failed_at: i64,
    gone: bool,
}

struct Run {
    regular: bool,
    only_recipe: Option<i32>,
    cutoff: i64,
    removed: usize,
    left_alone: usize,
    is_completed: bool,
    /// The snapshot that it ranked with.
    seen: Option<String>,
}

struct History {
    /// The versions of each row, in their order.
    rows: BTreeMap<i32, Vec<Version>>,
    runs: BTreeMap<i64, Run>,
    /// The run of each transaction that wrote the ledger, and how many rows it wrote there.
    paid: HashMap<u64, (i64, usize)>,
}

impl History {
    fn read(client: &mut Client) -> History {
        let number = |text: String| text.parse::<u64>().expect("a transaction id");
        let mut rows: BTreeMap<i32, Vec<Version>> = BTreeMap::new();
        let versions = "SELECT xid, id, account = 'system_backlog', recipe, status = 'failed',
            (extract(epoch FROM failed_at) * 1000000)::bigint, gone FROM version ORDER BY n";
        for row in client.query(versions, &[]).unwrap() {
            rows.entry(row.get(1)).or_default().push(Version {
                xid: number(row.get(0)),
                ours: row.get(2),
                recipe: row.get(3),
                failed: row.get(4),
                failed_at: row.get(5),
                gone: row.get(6),
            });
        }
        let runs =
            "SELECT id, mode = 'regular', recipe_id::integer, (extract(epoch FROM cutoff) * 1000000)::bigint, removed,
                           skipped + kept_back, state = 'completed', seen FROM backlog_cleanup.run LEFT JOIN ran ON run_id = id";
        let runs = client.query(runs, &[]).unwrap().into_iter().map(|row| {
            let run = Run {
                regular: row.get(1),
                only_recipe: row.get(2),
                cutoff: row.get::<_, Option<i64>>(3).unwrap_or(i64::MAX),
                removed: row.get::<_, i64>(4) as usize,
                left_alone: row.get::<_, i64>(5) as usize,
                is_completed: row.get(6),
                seen: row.get(7),
            };
            (row.get(0), run)
        });
        let runs = runs.collect();
        let paid = "SELECT xid, run_id, sum(amount)::bigint FROM paid GROUP BY 1, 2";
        let paid = client.query(paid, &[]).unwrap();
        let paid =
            paid.into_iter().map(|row| (number(row.get(0)), (row.get(1), row.get::<_, i64>(2) as usize))).collect();
        History { rows, runs, paid }
    }

    /// Panics where a promise is broken.
    fn check(&self) -> String {
        let mut removed_by: HashMap<i64, BTreeSet<i32>> = HashMap::new();
        let mut removed_in: HashMap<u64, usize> = HashMap::new();
        for (id, versions) in &self.rows {
            let Some(last) = versions.last().filter(|version| version.gone) else { continue };
            let (run_id, _) = self.paid.get(&last.xid).unwrap_or_else(|| panic!("row {id} is in no ledger"));
            let run = &self.runs[run_id];
            // Promise 1: at the moment it was removed.
            assert!(last.ours && last.failed && last.failed_at < run.cutoff, "row {id} of run {run_id}");
            assert!(run.only_recipe.is_none() || last.recipe == run.only_recipe, "row {id} of run {run_id}");
            removed_by.entry(*run_id).or_default().insert(*id);
            *removed_in.entry(last.xid).or_default() += 1;
        }
        // Promise 3: in every transaction, and of every run.
        for (xid, (run_id, amount)) in &self.paid {
            assert_eq!(removed_in.get(xid).copied().unwrap_or_default(), *amount, "transaction {xid} of run {run_id}");
        }
        let (mut ranked, mut total) = (0, 0);
        for (run_id, run) in &self.runs {
            let removed = removed_by.remove(run_id).unwrap_or_default();
            assert_eq!(removed.len(), run.removed, "run {run_id}");
            total += removed.len();
            if let Some(seen) = &run.seen {
                self.check_rank(*run_id, run, &Snapshot::of(seen), &removed);
                ranked += 1;
            }
        }
        assert!(removed_by.is_empty(), "{removed_by:?}");
        let changes: usize = self.rows.values().map(Vec::len).sum();
        format!("{changes} changes, {} runs that removed {total} rows, {ranked} of them ranked again", self.runs.len())
    }

    /// Promises 1 and 2: of what a run saw it removes the removable rows, but for those that somebody has changed since.
    fn check_rank(&self, run_id: i64, run: &Run, snapshot: &Snapshot, removed: &BTreeSet<i32>) {
        let mut groups: BTreeMap<Option<i32>, Vec<(i64, i32, bool)>> = BTreeMap::new();
        for (id, versions) in &self.rows {
            let Some(at) = versions.iter().rposition(|version| snapshot.sees(version.xid)) else { continue };
            let version = &versions[at];
            if !version.gone && version.ours && version.failed && version.failed_at < run.cutoff {
                // Untouched until it was removed, by this run or a later one, or to the end.
                let is_untouched = versions
                    .get(at + 1)
                    .is_none_or(|next| next.gone && self.paid.get(&next.xid).is_some_and(|(by, _)| *by >= run_id));
                groups.entry(version.recipe).or_default().push((version.failed_at, *id, is_untouched));
            }
        }
        let mut left = 0;
        for (recipe, mut expired) in groups {
            expired.sort_unstable_by_key(|(failed_at, id, _)| std::cmp::Reverse((*failed_at, *id)));
            for (rank, (_, id, is_untouched)) in expired.into_iter().enumerate() {
                let is_selected = run.only_recipe.is_none() || recipe == run.only_recipe;
                let goes = is_selected && (rank >= KEEP || !run.regular);
                assert!(goes || !is_untouched || !removed.contains(&id), "row {id} of run {run_id} had to stay");
                left += usize::from(goes && is_untouched && !removed.contains(&id));
            }
        }
        // Of rows that nobody else has touched, and of which the run has not told.
        assert!(!run.is_completed || left <= run.left_alone, "run {run_id} has left {left} rows");
    }
}

/// What a transaction saw: `xmin:xmax:in progress`.
struct Snapshot {
    xmax: u64,
    in_progress: BTreeSet<u64>,
}

impl Snapshot {
    fn of(text: &str) -> Snapshot {
        let mut parts = text.split(':').skip(1);
        let xmax = parts.next().and_then(|xmax| xmax.parse().ok()).expect("xmax");
        let in_progress = parts.next().unwrap_or_default().split(',').filter_map(|xid| xid.parse().ok()).collect();
        Snapshot { xmax, in_progress }
    }

    fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && !self.in_progress.contains(&xid)
    }
}
