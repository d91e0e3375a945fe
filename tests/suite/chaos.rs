//! Processes that die at random moments of a run: afterwards the books balance, nothing that must stay is gone, and the next
//! run finishes the job. ROUNDS says how many there are, SEED which.

use std::thread;
use std::time::{Duration, Instant};

use cluster::{Cluster, balance, last_state, number, numbers, until_holds, value};
use postgres::Client;

use crate::random::{Random, setting};

/// 5,000 rows of every kind, and apart from the extension which of them a run has to leave.
const FILL: &str = "TRUNCATE generations, credit_transactions, keeper; DELETE FROM backlog_cleanup.run;
    INSERT INTO generations (user_id, recipe_id, prompt, status, updated_at)
    SELECT CASE i % 17 WHEN 0 THEN 'somebody' ELSE 'system_backlog' END, nullif(i % 40, 0), '',
           CASE i % 13 WHEN 0 THEN 'pending' ELSE 'failed' END,
           now() AT TIME ZONE 'UTC' - CASE i % 11 WHEN 0 THEN interval '1 hour' ELSE interval '2 days' END
               - i * interval '1 second'
    FROM generate_series(1, 5000) i;
    INSERT INTO keeper
    SELECT mode, id
    FROM (SELECT id, user_id <> 'system_backlog' OR status <> 'failed' AS is_other,
                 updated_at > now() AT TIME ZONE 'UTC' - interval '1 day' AS is_fresh,
                 row_number() OVER (PARTITION BY recipe_id, user_id, status, updated_at > now() AT TIME ZONE 'UTC' - interval '1 day'
                                    ORDER BY updated_at DESC, id DESC) AS rank
          FROM generations) ranked, (VALUES ('regular'), ('emergency')) modes (mode)
    WHERE is_other OR mode = 'regular' AND (is_fresh OR rank <= 10)";

/// What a round does: how the run works, in which mode, and who dies.
#[derive(Debug, Clone, Copy)]
struct Round {
    form: Form,
    mode: &'static str,
    victim: Victim,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Function,
    Batched,
    Workers,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Backend,
    Worker,
    Postmaster,
    /// All at once, by an immediate stop.
    Everybody,
}

const KINDS: [(Form, Victim); 10] = [
    (Form::Function, Victim::Backend),
    (Form::Workers, Victim::Worker),
    (Form::Batched, Victim::Postmaster),
    (Form::Workers, Victim::Everybody),
    (Form::Batched, Victim::Backend),
    (Form::Function, Victim::Postmaster),
    (Form::Workers, Victim::Worker),
    (Form::Batched, Victim::Everybody),
    (Form::Workers, Victim::Postmaster),
    (Form::Function, Victim::Everybody),
];

impl Round {
    fn statement(&self) -> String {
        let mode = self.mode;
        match (self.form, mode) {
            (Form::Function, "regular") => "SELECT backlog_cleanup_failed_generations()".into(),
            (Form::Function, _) => "SELECT backlog_cleanup_emergency()".into(),
            (Form::Batched, _) => format!("CALL backlog_cleanup_run(mode => '{mode}', batch_size => 200)"),
            (Form::Workers, _) => {
                format!("CALL backlog_cleanup_run(mode => '{mode}', batch_size => 200, workers => 2)")
            }
        }
    }

    /// Runs, kills after a share (in thousandths) of the time that a run has taken, and brings the server back.
    /// Whether the run was cut off.
    fn play(&self, cluster: &Cluster, share: u64, usual: Duration) -> bool {
        let mut session = cluster.connect();
        let mut watcher = cluster.connect();
        let backend: i32 = value(&mut session, "SELECT pg_backend_pid()");
        let postmaster = cluster.postmaster();
        let statement = self.statement();
        let run = thread::spawn(move || session.batch_execute(&statement).map(|()| session));
        let mut victim = match self.victim {
            Victim::Postmaster => postmaster,
            _ => backend,
        };
        if self.victim == Victim::Worker {
            let workers = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'backlog_cleanup worker'";
            until_holds(|| {
                let worker = watcher.query_opt(workers, &[]).ok().flatten();
                victim = worker.as_ref().map_or(0, |row| row.get(0));
                worker.is_some() || run.is_finished()
            });
        }
        thread::sleep(usual * share as u32 / 1000);
        let mut is_dead = true;
        match self.victim {
            Victim::Everybody => cluster.stop(),
            _ => is_dead = victim != 0 && cluster.kill(victim),
        }
        let done = run.join().unwrap();
        let is_cut_off = done.is_err();
        match self.victim {
            Victim::Everybody | Victim::Postmaster => {
                drop(done);
                cluster.start_again();
            }
            // A worker that had finished dies without harm.
            Victim::Worker => is_dead = is_cut_off,
            Victim::Backend => {}
        }
        if is_dead && matches!(self.victim, Victim::Backend | Victim::Worker) {
            until_holds(|| watcher.batch_execute("").is_err());
        }
        is_cut_off
    }
}

struct Books {
    gone: i64,
    lost: i64,
    left: i64,
}

/// Reads the books, which must balance: all rows that are gone, those gone that had to stay, and those left that had to go.
fn books(client: &mut Client, mode: &str) -> Books {
    let gone = balance(client, 5000);
    let sets = format!(
        "WITH kept AS (SELECT id FROM keeper WHERE mode = '{mode}')
         SELECT (SELECT count(*) FROM (TABLE kept EXCEPT SELECT id FROM generations) lost),
                (SELECT count(*) FROM (SELECT id FROM generations EXCEPT TABLE kept) remaining)"
    );
    let [lost, left] = numbers(client, &sets);
    Books { gone, lost, left }
}

#[test]
fn the_books_balance_and_the_next_run_finishes_whatever_dies_and_whenever() {
    let (rounds, seed) = (setting("ROUNDS", 20), setting("SEED", 4));
    let cluster = Cluster::start("max_worker_processes = 16\n");
    let mut client = cluster.platform();
    client.batch_execute("CREATE TABLE keeper (mode text, id integer, PRIMARY KEY (mode, id))").unwrap();
    client.batch_execute(FILL).unwrap();
    let started = Instant::now();
    client.batch_execute("CALL backlog_cleanup_run(mode => 'emergency', batch_size => 200)").unwrap();
    let usual = started.elapsed();
    drop(client);
    let mut random = Random(seed);
    let (mut cut_off, mut in_between) = (0, 0);
    for round_number in 0..rounds {
        let (form, victim) = KINDS[round_number as usize % KINDS.len()];
        let mode = if random.below(2) == 0 { "regular" } else { "emergency" };
        let round = Round { form, mode, victim };
        let moment = random.below(1000);
        println!("round {round_number} of seed {seed}: {round:?}, {moment} thousandths of {usual:?}");
        cluster.reconnect().batch_execute(FILL).unwrap();
        cut_off += i32::from(round.play(&cluster, moment, usual));
        let mut client = cluster.reconnect();
        let Books { gone, lost, left } = books(&mut client, mode);
        assert_eq!(lost, 0, "nothing that must stay is gone");
        assert!(form != Form::Function || gone == 0 || left == 0, "one transaction does all or nothing");
        in_between += i32::from(gone > 0 && left > 0);
        let state = last_state(&mut client);
        let is_known = state.as_deref().is_none_or(|state| state == if left > 0 { "interrupted" } else { "completed" });
        assert!(is_known || left == 0 && state.as_deref() == Some("interrupted"), "{state:?} with {left} rows left");
        client.batch_execute(&round.statement()).unwrap();
        let Books { lost, left, .. } = books(&mut client, mode);
        assert_eq!((lost, left), (0, 0), "the next run finishes");
        assert_eq!(number(&mut client, "SELECT count(*) FROM backlog_cleanup.run WHERE state = 'running'"), 0);
    }
    println!("{rounds} rounds: {cut_off} runs were cut off, {in_between} of them between two batches");
}
