use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{Cluster, until_holds, value};
use postgres::{Client, Error};

use super::change::{Change, Effect, changes};
use super::form::{Form, Moment, UnderWay};
use super::scene::{Scene, Shape};

/// What a run may end with: it has lost a race, the ground is not what it was, or it is no ground for it.
const ENDINGS: [&str; 12] =
    ["40001", "55000", "55P03", "42P01", "42703", "42704", "42804", "42809", "42501", "0A000", "22P02", "3F000"];

struct Stage {
    cluster: Arc<Cluster>,
    database: String,
    other: Client,
    watch: Client,
    run: Option<Client>,
    violations: Vec<String>,
    cases: usize,
    refused: usize,
}

impl Stage {
    fn new(database: &str) -> Stage {
        let cluster = Cluster::shared("max_worker_processes = 16\ndeadlock_timeout = 200ms\nstatement_timeout = 20s\n");
        let mut other = cluster.platform_in(database);
        other
            .batch_execute(&format!(
                "DO $$ BEGIN CREATE ROLE somebody; EXCEPTION WHEN OTHERS THEN NULL; END $$;
                 CREATE SCHEMA elsewhere; GRANT USAGE ON SCHEMA elsewhere TO somebody;
                 CREATE FUNCTION elsewhere.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
                 {}
                 GRANT USAGE ON FOREIGN SERVER here TO somebody;",
                cluster.as_server("here", database)
            ))
            .unwrap();
        let watch = cluster.connect_to(database);
        Stage {
            cluster,
            database: database.to_owned(),
            other,
            watch,
            run: None,
            violations: Vec::new(),
            cases: 0,
            refused: 0,
        }
    }

    fn session(&mut self) -> Client {
        self.run.take().unwrap_or_else(|| self.cluster.connect_to(&self.database))
    }

    /// Makes one case of a change, a form and a moment, and notes what is wrong with its end.
    fn play(&mut self, change: &Change, form: Form, moment: Moment) {
        self.cases += 1;
        let scene = Scene::set(&mut self.other, format!("case_{}", self.cases), change.shape);
        let mut wrong: Vec<String> = Vec::new();
        let (emergency, target) = (form.is_emergency(), scene.name.as_str());
        let at_first = scene.there(&mut self.watch);
        let (mut rules, mut rows) = (scene.rules.clone(), scene.rows.clone());
        let could_go = rules.may_go(&rows, &at_first, emergency);
        change.effect.apply(&mut rules, &mut rows);

        let mut run = self.session();
        form.start(&mut run, target);
        let (before, after, ending, was_in_the_way) = match moment {
            Moment::Before => self.before(&scene, change, form, run),
            Moment::Wait => self.wait(&scene, change, form, run),
            Moment::Between if form == Form::Workers => self.beside_workers(&scene, change, form, run),
            Moment::Between => self.between(&scene, change, form, run),
        };
        let at_last = scene.there(&mut self.watch);
        let ending = ending.map_err(|failure| described(&failure));
        match &ending {
            Ok(()) => {}
            Err((sqlstate, message)) => {
                self.refused += 1;
                if !ENDINGS.contains(&sqlstate.as_str()) || message.contains("panic") {
                    wrong.push(format!("it ends with {sqlstate}, {message}"));
                }
            }
        }
        let gone: BTreeSet<i32> = after.difference(&at_last).copied().collect();
        let can_go = rules.may_go(&rows, &after, emergency);
        let may_go: BTreeSet<i32> = match (form, change.effect) {
            (Form::Status, _) => BTreeSet::new(),
            _ if !form.is_batched() => {
                if was_in_the_way {
                    can_go
                } else {
                    could_go.clone()
                }
            }
            (_, Effect::Policy { .. }) => could_go.intersection(&after).copied().collect(),
            (_, Effect::Older(_) | Effect::Again) => can_go,
            _ => could_go.intersection(&can_go).copied().collect(),
        };
        if !gone.is_subset(&may_go) {
            wrong.push(format!("rows that must stay are gone: {:?}", gone.difference(&may_go).collect::<Vec<_>>()));
        }
        let comes_back = matches!(change.effect, Effect::Older(_) | Effect::Again);
        if ending.is_ok() && !comes_back && form != Form::Workers && gone != may_go {
            wrong.push(format!(
                "rows that should be gone are there: {:?}",
                may_go.difference(&gone).collect::<Vec<_>>()
            ));
        }
        let so_far = at_first.difference(&before).count();
        if comes_back && form.is_batched() && !emergency && so_far + gone.len() > could_go.len() {
            wrong.push(format!("{} rows are gone of {} that were ranked", so_far + gone.len(), could_go.len()));
        }

        scene.run(&mut self.other, change.undo).unwrap_or_else(|failure| panic!("{}: {failure:?}", change.undo));
        let put_back = scene.there(&mut self.watch);
        let mut run = self.session();
        if let Err(failure) = run.batch_execute(&Form::Regular.call(target)) {
            wrong.push(format!("the next run fails: {:?}", described(&failure)));
        }
        self.run = Some(run);
        let finished = scene.there(&mut self.watch);
        let rest = scene.rules.may_go(&scene.rows, &put_back, false);
        let gone_now: BTreeSet<i32> = put_back.difference(&finished).copied().collect();
        if gone_now != rest {
            wrong.push(format!("the next run removes {gone_now:?}, and not {rest:?}"));
        }
        let [history, ledger] = scene.books(&mut self.watch);
        let removed = (so_far + gone.len() + gone_now.len()) as i64;
        if history != ledger || form != Form::Workers && history != removed {
            wrong.push(format!("{removed} rows are gone, {history} in the history, {ledger} in the ledger"));
        }
        let case = format!("{form:?} {moment:?} {:?}: {}", change.shape, change.change);
        self.violations.extend(wrong.into_iter().map(|wrong| format!("{case}\n    {wrong} ({ending:?})")));
        self.other.batch_execute(&scene.of("DELETE FROM backlog_cleanup.target WHERE name = 'S'")).unwrap();
    }

    fn change(&mut self, scene: &Scene, change: &Change) -> [BTreeSet<i32>; 2] {
        let before = scene.there(&mut self.other);
        for statement in statements(change) {
            scene.run(&mut self.other, statement).unwrap_or_else(|failure| panic!("{statement}: {failure:?}"));
        }
        [before, scene.there(&mut self.other)]
    }

    fn before(&mut self, scene: &Scene, change: &Change, form: Form, mut run: Client) -> Played {
        run.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class LIMIT 1").unwrap();
        let [before, after] = self.change(scene, change);
        let mut ending = run.batch_execute(&form.call(&scene.name));
        run.batch_execute(if ending.is_ok() { "COMMIT" } else { "ROLLBACK" }).unwrap();
        if ending.is_ok() {
            ending = form.finish(&mut run, &scene.name);
        }
        self.run = Some(run);
        (before, after, ending, true)
    }

    fn between(&mut self, scene: &Scene, change: &Change, form: Form, mut run: Client) -> Played {
        let [before, after] = self.change(scene, change);
        let ending = form.finish(&mut run, &scene.name);
        self.run = Some(run);
        (before, after, ending, true)
    }

    fn wait(&mut self, scene: &Scene, change: &Change, form: Form, run: Client) -> Played {
        let mut before = scene.there(&mut self.watch);
        let call = vec![form.call(&scene.name)];
        let (mut after, run, was_in_the_way) = if change.is_alone() {
            // Behind a third session, in this order.
            self.other.batch_execute(&scene.of("BEGIN; LOCK TABLE S.job IN ACCESS EXCLUSIVE MODE")).unwrap();
            let session = self.cluster.connect_to(&self.database);
            let changing = UnderWay::start(session, statements(change).map(|one| scene.of(one)).collect());
            changing.waits(&mut self.watch);
            let run = UnderWay::start(run, call);
            run.waits(&mut self.watch);
            self.other.batch_execute("COMMIT").unwrap();
            changing.join().1.unwrap_or_else(|failure| panic!("{}: {failure:?}", change.change));
            (before.clone(), run, true)
        } else {
            self.other.batch_execute("BEGIN").unwrap();
            let [_, mut after] = self.change(scene, change);
            let run = UnderWay::start(run, call);
            let waits = run.waits(&mut self.watch);
            if form.is_batched() && !waits {
                // A batch has gone by before the change.
                let there = scene.there(&mut self.other);
                before.retain(|key| !after.contains(key) || there.contains(key));
                after = there;
            }
            self.other.batch_execute("COMMIT").unwrap();
            (after, run, waits)
        };
        let (mut run, mut ending) = run.join();
        if ending.is_ok() {
            ending = form.finish(&mut run, &scene.name);
        }
        self.run = Some(run);
        if matches!(change.effect, Effect::Older(_)) && change.is_alone() {
            after.extend(1000..1030);
        }
        (before, after, ending, was_in_the_way)
    }

    fn beside_workers(&mut self, scene: &Scene, change: &Change, form: Form, run: Client) -> Played {
        let run = UnderWay::start(run, vec![form.call(&scene.name)]);
        let removed =
            scene.of("SELECT coalesce(sum(removed), 0)::bigint > 2 FROM backlog_cleanup.run WHERE target = 'S'");
        until_holds(|| run.is_over() || value(&mut self.watch, &removed));
        let [before, _] = self.change(scene, change);
        // A batch that has begun before the change may end behind it.
        let now: String = value(&mut self.watch, "SELECT clock_timestamp()::text");
        let have_ended = format!(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
                                WHERE backend_type = 'backlog_cleanup worker' AND datname = current_database() AND xact_start < '{now}')"
        );
        until_holds(|| run.is_over() || value(&mut self.watch, &have_ended));
        let after = scene.there(&mut self.watch);
        let (run, ending) = run.join();
        self.run = Some(run);
        (before, after, ending, true)
    }
}

/// The rows before and after the change, how the run ended, and whether it saw the change.
type Played = (BTreeSet<i32>, BTreeSet<i32>, Result<(), Error>, bool);

fn statements(change: &Change) -> impl Iterator<Item = &'static str> {
    change.change.split("; ")
}

fn described(failure: &Error) -> (String, String) {
    let error = failure.as_db_error().unwrap_or_else(|| panic!("an error of the server: {failure:?}"));
    (error.code().code().to_owned(), format!("{} {}", error.message(), error.detail().unwrap_or_default()))
}

/// Whether a case means something.
fn is_one(change: &Change, form: Form, moment: Moment) -> bool {
    // Another server's locks are not seen, what is alone cannot tell what it left to the run, and a run may come before a
    // detach that waits beside it.
    let is_seen = change.shape != Shape::Foreign
        && !(change.is_alone() && (change.change.contains("DELETE") || change.change.contains("DETACH")));
    // It would wait for the transaction that is to make the call.
    let waits_for_snapshots = change.change.contains("CONCURRENTLY") && !change.change.contains("DETACH");
    match moment {
        Moment::Before => !waits_for_snapshots,
        Moment::Wait => is_seen,
        Moment::Between => form != Form::Workers || change.shape != Shape::Foreign,
    }
}

fn every_change_around(database: &str, form: Form) {
    let mut stage = Stage::new(database);
    let only = std::env::var("CHANGE").unwrap_or_default();
    for change in changes().iter().filter(|change| change.change.contains(&only)) {
        for moment in form.moments() {
            if is_one(change, form, *moment) {
                stage.play(change, form, *moment);
            }
        }
    }
    println!("{database}: {} cases, {} of them refused", stage.cases, stage.refused);
    assert!(stage.violations.is_empty(), "{} violations\n{}", stage.violations.len(), stage.violations.join("\n"));
}

#[test]
fn a_regular_run_survives_every_change() {
    every_change_around("changed_regular", Form::Regular);
}

#[test]
fn an_emergency_run_survives_every_change() {
    every_change_around("changed_emergency", Form::Emergency);
}

#[test]
fn a_batched_run_survives_every_change() {
    every_change_around("changed_batched", Form::Batched);
}

#[test]
fn a_batched_emergency_run_survives_every_change() {
    every_change_around("changed_batched_emergency", Form::BatchedEmergency);
}

#[test]
fn workers_survive_every_change() {
    every_change_around("changed_workers", Form::Workers);
}

#[test]
fn status_survives_every_change() {
    every_change_around("changed_status", Form::Status);
}
