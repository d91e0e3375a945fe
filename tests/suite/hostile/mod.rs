//! The extension's own session, attacked by chance: an owner of tables, an admin, an operator and a monitor do what they can
//! around the runs of a superuser, for SECONDS. An episode is made from its seed alone.

mod actions;
mod actors;
mod code;
mod invariants;
mod replay;

use std::time::{Duration, Instant};

use crate::random::{Random, setting};

/// Seeds that have found something, which go first.
const FOUND: [u64; 2] = [24, 7003];

#[test]
fn hostile_roles_gain_nothing_by_chance() {
    let (seconds, first) = (setting("SECONDS", 60), setting("SEED", 1));
    let arena = actors::Arena::start();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut episodes, mut ran) = (0, 0);
    for seed in FOUND.into_iter().chain(first..) {
        let steps = actions::episode(&mut Random(seed));
        match replay::play(&arena, &steps) {
            Ok(times) => ran += times,
            Err(violation) => {
                let (steps, violation) = replay::shrink(&arena, &steps, violation);
                let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
                panic!("SEED={seed}, after {episodes} episodes:\n{}\n--- violation: {violation}", steps.join("\n"));
            }
        }
        episodes += 1;
        if Instant::now() > end {
            break;
        }
    }
    assert!(ran > episodes, "the code of hostile roles has hardly run");
    let logged = arena.logged();
    for word in ["PANIC", "XX000", "terminated by signal"] {
        assert!(!logged.contains(word), "{word} in the log:\n{logged}");
    }
    println!("{episodes} episodes from seed {first}; code of hostile roles ran {ran} times");
}
