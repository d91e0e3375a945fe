use std::collections::{BTreeMap, HashSet};

use pgrx::pg_sys;

use crate::postgres::datum::tid_array;
use crate::postgres::error::Result;
use crate::postgres::met::Met;
use crate::postgres::names::{Object, naming_also};
use crate::postgres::settings::set_local;
use crate::postgres::stream::stream_writing;
use crate::postgres::subtransaction::attempt;
use crate::rank::removable::Removable;
use crate::rank::tally::Tally;
use crate::remove::besides::Besides;
use crate::remove::by_position::{group, lock, still_there, where_they_are};
use crate::remove::find::at_some_positions;
use crate::remove::heap::follow;
use crate::remove::left::{LOCK_NOT_AVAILABLE, Left, Reason};
use crate::remove::order::{Linked, can_dangle, in_order};
use crate::remove::pieces::Pieces;
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// The rows of some circles by their leaves.
type ByLeaf = BTreeMap<usize, Vec<Removable>>;

/// Removes the circles that can go, each of which has rows of several leaves, in one statement if all of them can: PostgreSQL checks
/// their references when it ends. Returns those that stay. `tables` are the target's.
pub fn remove_across(
    rules: &Rules,
    leaves: &[Leaf],
    tables: &[pg_sys::Oid],
    rows: &[Linked],
    tally: &mut Tally,
    left: &mut Left,
) -> Result<Vec<Linked>> {
    let places: Vec<&Leaf> = by_leaf(&[rows]).keys().map(|place| &leaves[*place]).collect();
    let named: Vec<Object> = places.iter().flat_map(|leaf| leaf.table.named_with_it()).collect();
    as_owner_of_all(&places, &named, rules, &mut || {
        if can_dangle(places[0], tables)? && is_held(leaves, rows)? {
            keep(rules, leaves, rows, &mut || Reason::referenced(None), tally, left)?;
            return Ok(rows.to_vec());
        }
        remove_around(rules, leaves, tables, rows, tally, left)
    })
}

/// Halves what is refused until the circles are found that cannot go.
fn remove_around(
    rules: &Rules,
    leaves: &[Leaf],
    tables: &[pg_sys::Oid],
    rows: &[Linked],
    tally: &mut Tally,
    left: &mut Left,
) -> Result<Vec<Linked>> {
    let circles: Vec<&[Linked]> = rows.chunk_by(|_, next| !next.is_first).collect();
    let mut pieces = Pieces::of(&circles, left.patience);
    let mut again = Vec::new();
    while let Some(piece) = pieces.next(|_| true) {
        let wanted = by_leaf(&piece);
        let mut removed = attempt(|| remove_all(rules, leaves, tables, &wanted, tally));
        let mut changed = 0;
        if matches!(removed, Ok(None)) {
            // Rows may be elsewhere, or not removable any more.
            let mut now = ByLeaf::new();
            for (place, rows) in &wanted {
                let (there, of_leaf) = where_they_are(rules, &leaves[*place], rows, tally)?;
                now.insert(*place, there);
                changed += of_leaf;
            }
            removed = attempt(|| remove_all(rules, leaves, tables, &now, tally));
        }
        if matches!(removed, Ok(Some(_))) {
            left.keep_changed(changed);
            pieces.went();
            continue;
        }
        pieces.lose();
        let met = removed.err().map(Met::on_a_row);
        if met.as_ref().is_some_and(|met| met.sqlstate == LOCK_NOT_AVAILABLE) {
            // The statement above has waited for all of them.
            set_local("lock_timeout", "1");
            let mut free = HashSet::new();
            for (place, rows) in &wanted {
                let now = follow(&leaves[*place], rows);
                let locked: HashSet<_> = lock(rules, &leaves[*place], &now)?.into_iter().collect();
                free.extend(
                    rows.iter().zip(now).filter(|(_, now)| locked.contains(now)).map(|(row, _)| (*place, *row)),
                );
            }
            let is_free = |circle: &&[Linked]| circle.iter().all(|of| free.contains(&(of.place, of.row)));
            let (free, locked): (Vec<_>, Vec<_>) = piece.iter().copied().partition(is_free);
            if !locked.is_empty() {
                left.skipped += locked.concat().len() as i64;
                pieces.first(free);
                continue;
            }
        }
        if pieces.halve(&piece, |_| true, |_, _| false) {
            continue;
        }
        let rows = piece.concat();
        let mut met = Some(met);
        keep(rules, leaves, &rows, &mut || Reason::new(met.take().flatten(), None), tally, left)?;
        again.extend(rows);
    }
    left.patience = pieces.patience();
    let rest = pieces.rest().concat();
    left.kept_back += rest.len() as i64;
    left.given_up += rest.len() as i64;
    again.extend(rest);
    Ok(again)
}

/// Whether a row that stays references one of these, directly or through others.
fn is_held(leaves: &[Leaf], rows: &[Linked]) -> Result<bool> {
    let mut of_leaf = by_leaf(&[rows]);
    let rows = (0..leaves.len()).map(|place| of_leaf.remove(&place).unwrap_or_default()).collect();
    Ok(in_order(leaves, rows, usize::MAX)?.held.iter().any(|(_, rows)| !rows.is_empty()))
}

/// Counts rows that stay, for a reason that one of them gives.
fn keep(
    rules: &Rules,
    leaves: &[Leaf],
    rows: &[Linked],
    reason: &mut dyn FnMut() -> Reason,
    tally: &mut Tally,
    left: &mut Left,
) -> Result<()> {
    for (place, rows) in by_leaf(&[rows]) {
        let leaf = &leaves[place];
        let (there, changed) = where_they_are(rules, leaf, &rows, tally)?;
        let (row, stayed) = still_there(rules, leaf, &there)?;
        left.keep(&stayed, || Reason { row, ..reason() });
        left.keep_changed(changed);
    }
    // A later pass tries them as circles.
    left.again.clear();
    Ok(())
}

fn by_leaf(circles: &[&[Linked]]) -> ByLeaf {
    let mut rows = ByLeaf::new();
    circles.iter().copied().flatten().for_each(|linked| rows.entry(linked.place).or_default().push(linked.row));
    rows
}

/// Does `work` as the owner that all these leaves have. Its statements name them and these objects.
fn as_owner_of_all<T>(
    leaves: &[&Leaf],
    named: &[Object],
    rules: &Rules,
    work: &mut dyn FnMut() -> Result<T>,
) -> Result<T> {
    match leaves {
        [] => naming_also(named, work),
        [leaf, others @ ..] => leaf.as_owner(rules.target, || as_owner_of_all(others, named, rules, work)),
    }
}

/// Removes rows of several leaves, or none of them.
fn remove_all(
    rules: &Rules,
    leaves: &[Leaf],
    tables: &[pg_sys::Oid],
    wanted: &ByLeaf,
    tally: &mut Tally,
) -> Result<Option<usize>> {
    let (mut tids, mut deletes, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for (place, rows) in wanted {
        let (leaf, from) = (&leaves[*place], tids.len() + 1);
        tids.extend(rows.iter().map(Removable::tid));
        let of_leaf = at_some_positions(rules, from..=tids.len());
        let group = group(rules);
        deletes.push(format!(
            "gone_{place} AS (DELETE FROM ONLY {} g WHERE {of_leaf} RETURNING {group}, 1::bigint)",
            leaf.table.name
        ));
        counts.push(format!("SELECT * FROM gone_{place}"));
    }
    let Some(leaf) = wanted.keys().next().map(|place| &leaves[*place]) else { return Ok(Some(0)) };
    let besides = Besides::of(leaf, tables);
    let delete = format!("WITH {} {}", deletes.join(", "), counts.join(" UNION ALL "));
    let mut gone = Tally::of(rules.target, &rules.policies);
    stream_writing(&delete, Some(tid_array(&tids)), |row| gone.count_removed(row))?;
    let removed = gone.removed() as usize;
    besides.are_none(removed)?;
    if removed < tids.len() {
        return Ok(None);
    }
    tally.add(gone);
    Ok(Some(removed))
}
