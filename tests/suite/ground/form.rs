use std::thread::{self, JoinHandle};

use cluster::{truth, value};
use postgres::{Client, Error};

/// What is called.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Form {
    Regular,
    Emergency,
    Batched,
    BatchedEmergency,
    Workers,
    Status,
}

/// When the change is made.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Moment {
    /// After the snapshot of a transaction at REPEATABLE READ in which the call is made.
    Before,
    /// In a transaction that ends while the call waits for it, if it has to.
    Wait,
    /// Between two batches.
    Between,
}

impl Form {
    pub fn moments(self) -> &'static [Moment] {
        match self {
            Form::Regular | Form::Emergency => &[Moment::Before, Moment::Wait],
            Form::Batched | Form::BatchedEmergency => &[Moment::Before, Moment::Wait, Moment::Between],
            Form::Workers => &[Moment::Between],
            Form::Status => &[Moment::Before],
        }
    }

    pub fn is_emergency(self) -> bool {
        matches!(self, Form::Emergency | Form::BatchedEmergency)
    }

    pub fn is_batched(self) -> bool {
        matches!(self, Form::Batched | Form::BatchedEmergency | Form::Workers)
    }

    /// Starts a batched run by hand, and removes its first batch.
    pub fn start(self, session: &mut Client, target: &str) {
        if !matches!(self, Form::Batched | Form::BatchedEmergency) {
            return;
        }
        let mode = if self.is_emergency() { "emergency" } else { "regular" };
        let start = format!(
            r#"SELECT backlog_cleanup.start_run('{{"target": "{target}", "mode": "{mode}", "batch_size": 4, "pause": "0",
                                                   "workers": 1, "force": false, "include_held": false}}')"#
        );
        let _: i64 = value(session, &start);
        session.batch_execute(&self.call(target)).expect("the first batch");
    }

    /// What is called once; of a batched run a batch.
    pub fn call(self, target: &str) -> String {
        match self {
            Form::Regular => format!("SELECT backlog_cleanup_failed_generations('{target}')"),
            Form::Emergency => format!("SELECT backlog_cleanup_emergency('{target}')"),
            Form::Status => format!("SELECT count(*) FROM backlog_cleanup_status('{target}')"),
            Form::Workers => {
                format!("CALL backlog_cleanup_run('{target}', batch_size => 2, pause => '40 ms', workers => 2)")
            }
            Form::Batched | Form::BatchedEmergency => {
                format!("SELECT backlog_cleanup.next_batch(max(id)) FROM backlog_cleanup.run WHERE target = '{target}'")
            }
        }
    }

    /// Goes on to the end of a batched run.
    pub fn finish(self, session: &mut Client, target: &str) -> Result<(), Error> {
        if !matches!(self, Form::Batched | Form::BatchedEmergency) {
            return Ok(());
        }
        let mut batches = 0;
        while session.query_one(&self.call(target), &[])?.get::<_, Option<f64>>(0).is_some() {
            batches += 1;
            assert!(batches < 1000, "a run of {target} has no end");
        }
        session.batch_execute(&format!(
            "SELECT backlog_cleanup.finish_run(max(id)) FROM backlog_cleanup.run WHERE target = '{target}'"
        ))
    }
}

/// Statements of another session, under way.
pub struct UnderWay {
    process: i32,
    work: JoinHandle<(Client, Result<(), Error>)>,
}

impl UnderWay {
    pub fn start(mut session: Client, statements: Vec<String>) -> UnderWay {
        let process = value(&mut session, "SELECT pg_backend_pid()");
        let work = thread::spawn(move || {
            let done = statements.iter().try_for_each(|statement| session.batch_execute(statement));
            (session, done)
        });
        UnderWay { process, work }
    }

    pub fn is_over(&self) -> bool {
        self.work.is_finished()
    }

    /// Waits until it waits for a lock, and returns true, or until it has ended.
    pub fn waits(&self, client: &mut Client) -> bool {
        let waits = format!("SELECT cardinality(pg_blocking_pids({})) > 0", self.process);
        loop {
            if self.is_over() {
                return false;
            }
            if truth(client, &waits) {
                return true;
            }
            thread::yield_now();
        }
    }

    pub fn join(self) -> (Client, Result<(), Error>) {
        self.work.join().expect("no panic")
    }
}
