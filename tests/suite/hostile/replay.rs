//! Plays the steps of an episode, and takes those away that a violation does not need.

use std::thread;
use std::time::{Duration, Instant};

use crate::hostile::actions::Step;
use crate::hostile::actors::{ACTORS, Actor, Arena, Database};
use crate::hostile::invariants::{Invariants, Session};

/// How often code of a hostile role has run.
pub type Ran = i64;

pub fn play(arena: &Arena, steps: &[Step]) -> Result<Ran, String> {
    let mut database = arena.open();
    let mut invariants = Invariants::new(&mut database.checker);
    let mut open: Vec<Actor> = Vec::new();
    for step in steps {
        let told = act(&mut database, &mut invariants, &mut open, step).map_err(|what| format!("{step}\n{what}"))?;
        invariants
            .check(&mut database.checker, step, !open.is_empty())
            .map_err(|what| format!("{step}\n{told}\n{what}"))?;
    }
    for actor in ACTORS {
        database.session(actor).batch_execute("COMMIT").ok();
    }
    invariants.check_world(&mut database.checker)?;
    Ok(cluster::number(&mut database.checker, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.ran"))
}

/// Takes a step, and returns what the server has answered. A failure in a transaction leaves the transaction open.
fn act(
    database: &mut Database,
    invariants: &mut Invariants,
    open: &mut Vec<Actor>,
    step: &Step,
) -> Result<String, String> {
    let is_open = open.contains(&step.actor);
    // What itself begins, ends or rewinds the transaction.
    let is_control = ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT"].iter().any(|word| step.sql.starts_with(word));
    let has_savepoint = is_open && !is_control;
    let is_guest = step.is_call() && step.actor.is_protected();
    if step.is_call() {
        invariants.allow(&mut database.checker, step);
    }
    let session = database.session(step.actor);
    let before = is_guest.then(|| Session::of(session));
    if has_savepoint {
        session.batch_execute("SAVEPOINT step").map_err(|failure| failure.to_string())?;
    }
    let result = match &step.beside {
        Some((actor, sql)) => {
            let [session, other] = database.sessions(step.actor, *actor);
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(10));
                    other.batch_execute(sql)
                });
                session.batch_execute(&step.sql)
            })
        }
        None => session.batch_execute(&step.sql),
    };
    let session = database.session(step.actor);
    if session.is_closed() {
        return Err(format!("the session has ended: {result:?}"));
    }
    if has_savepoint {
        let back = if result.is_ok() { "RELEASE step" } else { "ROLLBACK TO step" };
        session.batch_execute(back).map_err(|failure| failure.to_string())?;
    } else if result.is_err() {
        session.batch_execute("ROLLBACK").map_err(|failure| failure.to_string())?;
    }
    let told = match &result {
        Ok(()) => "OK".to_owned(),
        Err(failure) => failure
            .as_db_error()
            .map_or(failure.to_string(), |error| format!("{}: {}", error.code().code(), error.message())),
    };
    if told.starts_with("XX") && (is_guest || step.actor == Actor::Superuser) {
        return Err(told);
    }
    let has_ended = result.is_err() && !has_savepoint || ["COMMIT", "ROLLBACK"].contains(&step.sql.as_str());
    if has_ended {
        open.retain(|actor| *actor != step.actor);
    } else if step.sql.starts_with("BEGIN") && !is_open {
        open.push(step.actor);
    }
    if let Some(before) = before {
        before.check(&Session::of(session)).map_err(|what| format!("{told}\n{what}"))?;
    }
    if let Some(warning) = database.warnings.try_iter().find(|warning| warning.starts_with("ESCAPE")) {
        return Err(format!("{told}\n{warning}"));
    }
    Ok(told)
}

/// As few of the steps as it finds in half a minute that still break something, and what.
pub fn shrink(arena: &Arena, steps: &[Step], violation: String) -> (Vec<Step>, String) {
    let (mut steps, mut violation) = (steps.to_vec(), violation);
    let end = Instant::now() + Duration::from_secs(30);
    for at in (0..steps.len()).rev() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        if Instant::now() < end
            && let Err(still) = play(arena, &fewer)
        {
            (steps, violation) = (fewer, still);
        }
    }
    (steps, violation)
}
