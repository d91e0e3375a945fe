use std::collections::{BTreeMap, HashMap, HashSet};

use pgrx::pg_sys;

use crate::postgres::datum::tid_array;
use crate::postgres::error::Result;
use crate::postgres::met::Met;
use crate::postgres::names::{Object, naming_also};
use crate::postgres::settings::set_local;
use crate::postgres::snapshot::with_new_snapshot;
use crate::postgres::stream::stream_writing;
use crate::postgres::subtransaction::attempt;
use crate::rank::removable::Removable;
use crate::rank::tally::Tally;
use crate::remove::besides::Besides;
use crate::remove::by_position::{group, lock, still_there, where_they_are};
use crate::remove::find::at_some_positions;
use crate::remove::heap::follow;
use crate::remove::left::{LOCK_NOT_AVAILABLE, Left, Reason};
use crate::remove::order::{Linked, Waiting, can_dangle};
use crate::remove::pieces::Pieces;
use crate::rules::Rules;
use crate::target::leaf::Leaf;

/// Rows by their leaves.
type ByLeaf = BTreeMap<usize, Vec<Removable>>;

/// Removes the rows that can go, which are of several leaves, in one statement if all of them can: PostgreSQL checks their references
/// when it ends. Halves what is refused until the rows are found that cannot go; rows that they reference are not tried, and rows in a
/// circle stay together. Returns those that stay. `tables` are the target's.
pub fn remove_across(
    rules: &Rules,
    leaves: &[Leaf],
    tables: &[pg_sys::Oid],
    rows: &[Linked],
    tally: &mut Tally,
    left: &mut Left,
) -> Result<Vec<Linked>> {
    let places: Vec<&Leaf> = by_leaf(rows).keys().map(|place| &leaves[*place]).collect();
    let named: Vec<Object> = places.iter().flat_map(|leaf| leaf.table.named_with_it()).collect();
    as_owner_of_all(&places, &named, rules, &mut || remove_around(rules, leaves, tables, rows, tally, left))
}

fn remove_around(
    rules: &Rules,
    leaves: &[Leaf],
    tables: &[pg_sys::Oid],
    rows: &[Linked],
    tally: &mut Tally,
    left: &mut Left,
) -> Result<Vec<Linked>> {
    let all: Vec<&Leaf> = leaves.iter().collect();
    let read = |rows: &[Linked]| {
        let mut of_leaf = by_leaf(rows);
        let rows = (0..leaves.len()).map(|place| of_leaf.remove(&place).unwrap_or_default()).collect();
        Waiting::of(&all, tables, &rows)
    };
    let mut pieces = Pieces::of(rows, left.patience);
    let (mut waiting, mut is_read, mut held): (Option<Waiting>, _, _) = (None, false, Vec::new());
    let dangle = by_leaf(rows).keys().try_fold(false, |can, place| Ok(can || can_dangle(&leaves[*place], tables)?))?;
    if dangle
        && !std::mem::replace(&mut is_read, true)
        && let Some((read, in_order)) = read(rows)?
    {
        waiting = Some(read);
        pieces = Pieces::of(&in_order, left.patience);
    }
    let mut again = Vec::new();
    while let Some(mut piece) =
        pieces.next(|of| waiting.as_ref().is_none_or(|waiting| waiting.is_ready(of.place, &of.row)))
    {
        if let Some(waiting) = &waiting {
            held.extend(piece.extract_if(.., |of| waiting.is_held(of.place, &of.row)));
            if piece.is_empty() {
                continue;
            }
        }
        let tried = by_leaf(&piece);
        let mut removed = attempt(|| remove_all(rules, leaves, tables, &tried, tally));
        if !matches!(removed, Ok(Some(_))) {
            let changed;
            (piece, changed) = where_all_are(rules, leaves, &piece, tally)?;
            left.keep_changed(changed);
        }
        let wanted = by_leaf(&piece);
        if matches!(removed, Ok(None)) {
            removed = attempt(|| remove_all(rules, leaves, tables, &wanted, tally));
        }
        if matches!(removed, Ok(Some(_))) {
            for (place, rows) in &tried {
                waiting.iter_mut().for_each(|waiting| waiting.went(*place, rows));
            }
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
                let leaf = &leaves[*place];
                let now = with_new_snapshot(|| follow(leaf, rows));
                let locked: HashSet<_> = lock(rules, leaf, &Besides::of(leaf, tables), &now)?.into_iter().collect();
                free.extend(
                    rows.iter().zip(now).filter(|(_, now)| locked.contains(now)).map(|(row, _)| (*place, *row)),
                );
            }
            let (free, others): (Vec<_>, Vec<_>) = piece.iter().partition(|of| free.contains(&(of.place, of.row)));
            if !others.is_empty() {
                left.skipped += others.len() as i64;
                pieces.first(free);
                continue;
            }
        }
        if piece.len() > 1
            && !std::mem::replace(&mut is_read, true)
            && let Some((read, in_order)) = read(&piece)?
        {
            waiting = Some(read);
            pieces.first(in_order);
            continue;
        }
        let is_ready = |of: &Linked| waiting.as_ref().is_none_or(|waiting| waiting.is_ready(of.place, &of.row));
        let are_together = |a: &Linked, b: &Linked| {
            waiting.as_ref().is_some_and(|waiting| waiting.are_together((a.place, &a.row), (b.place, &b.row)))
        };
        if pieces.halve(&piece, is_ready, are_together) {
            continue;
        }
        let mut met = Some(met);
        let stayed = keep(rules, leaves, &piece, &mut || Reason::new(met.take().flatten(), None), tally, left)?;
        let mut of_leaf = by_leaf(&stayed);
        for (place, rows) in &tried {
            let stayed = of_leaf.remove(place).unwrap_or_default();
            waiting.iter_mut().for_each(|waiting| waiting.tried(*place, &leaves[*place], rows, &stayed));
        }
        again.extend(stayed);
    }
    left.patience = pieces.patience();
    let mut rest = pieces.rest();
    held.extend(rest.extract_if(.., |of| waiting.as_ref().is_some_and(|waiting| waiting.is_held(of.place, &of.row))));
    left.kept_back += rest.len() as i64;
    left.given_up += rest.len() as i64;
    let held = keep(rules, leaves, &held, &mut || Reason::referenced(None), tally, left)?;
    // A later pass tries them in the order of this one.
    let turns: HashMap<_, usize> = rows.iter().map(|of| (of.place, of.row)).zip(0..).collect();
    let mut again = [again, held, rest].concat();
    again.sort_by_key(|of| turns.get(&(of.place, of.row)).copied());
    Ok(again)
}

/// The rows at their present positions, as `where_they_are` has those of one leaf.
fn where_all_are(rules: &Rules, leaves: &[Leaf], rows: &[Linked], tally: &mut Tally) -> Result<(Vec<Linked>, usize)> {
    let (mut of_leaf, mut changed) = (ByLeaf::new(), 0);
    for (place, rows) in by_leaf(rows) {
        let (there, of_this) = where_they_are(rules, &leaves[place], &rows, tally)?;
        changed += of_this;
        of_leaf.insert(place, there);
    }
    Ok((among(leaves, rows, &of_leaf), changed))
}

/// Those of these rows that are there, with their present positions.
fn among(leaves: &[Leaf], rows: &[Linked], there: &ByLeaf) -> Vec<Linked> {
    let mut now_of = HashMap::new();
    for (place, rows) in by_leaf(rows) {
        let there: HashSet<&Removable> = there.get(&place).into_iter().flatten().collect();
        let now = with_new_snapshot(|| follow(&leaves[place], &rows));
        now_of.extend(
            rows.into_iter().zip(now).filter(|(_, now)| there.contains(now)).map(|(row, now)| ((place, row), now)),
        );
    }
    let now = |of: &Linked| now_of.get(&(of.place, of.row)).map(|row| Linked { row: *row, ..*of });
    rows.iter().filter_map(now).collect()
}

/// Counts rows that stay, for a reason that one of them gives, and returns them: others may be gone by now.
fn keep(
    rules: &Rules,
    leaves: &[Leaf],
    rows: &[Linked],
    reason: &mut dyn FnMut() -> Reason,
    tally: &mut Tally,
    left: &mut Left,
) -> Result<Vec<Linked>> {
    let mut of_leaf = ByLeaf::new();
    for (place, rows) in by_leaf(rows) {
        let leaf = &leaves[place];
        let (there, changed) = where_they_are(rules, leaf, &rows, tally)?;
        let (row, stayed) = still_there(rules, leaf, &there)?;
        left.keep(&stayed, || Reason { row, ..reason() });
        left.keep_changed(changed);
        of_leaf.insert(place, stayed);
    }
    // A later pass tries them as circles.
    left.again.clear();
    Ok(among(leaves, rows, &of_leaf))
}

fn by_leaf(rows: &[Linked]) -> ByLeaf {
    let mut of_leaf = ByLeaf::new();
    rows.iter().for_each(|linked| of_leaf.entry(linked.place).or_default().push(linked.row));
    of_leaf
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
