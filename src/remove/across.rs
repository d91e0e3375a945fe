use std::collections::BTreeMap;

use pgrx::pg_sys;

use crate::postgres::datum::tid_array;
use crate::postgres::error::Result;
use crate::postgres::met::Met;
use crate::postgres::names::{Object, naming_also};
use crate::postgres::stream::stream_writing;
use crate::postgres::subtransaction::attempt;
use crate::rank::removable::Removable;
use crate::rank::tally::Tally;
use crate::remove::besides::Besides;
use crate::remove::by_position::{group, still_there, where_they_are};
use crate::remove::find::at_some_positions;
use crate::remove::left::{LOCK_NOT_AVAILABLE, Left, Reason};
use crate::remove::order::Linked;
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
    let circles: Vec<&[Linked]> = rows.chunk_by(|_, next| !next.is_first).collect();
    let mut pieces = Pieces::of(&circles, left.patience);
    let mut again = Vec::new();
    while let Some(piece) = pieces.next(|_| true) {
        let wanted = by_leaf(&piece);
        let places: Vec<&Leaf> = wanted.keys().map(|place| &leaves[*place]).collect();
        let (met, changed) = as_owner_of_all(&places, rules, &mut || {
            match attempt(|| remove_all(rules, leaves, tables, &wanted, tally)) {
                Ok(Some(_)) => return Ok((None, 0)),
                Ok(None) => {}
                Err(failure) => return Ok((Some(Some(Met::on_a_row(failure))), 0)),
            }
            // Rows may be elsewhere, or not removable any more.
            let (mut now, mut changed) = (ByLeaf::new(), 0);
            for (place, rows) in &wanted {
                let (there, of_leaf) = where_they_are(rules, &leaves[*place], rows, tally)?;
                now.insert(*place, there);
                changed += of_leaf;
            }
            let removed = attempt(|| remove_all(rules, leaves, tables, &now, tally));
            let met =
                removed.map_or_else(|failure| Some(Some(Met::on_a_row(failure))), |all| all.is_none().then_some(None));
            Ok((met, changed))
        })?;
        let Some(met) = met else {
            left.keep_changed(changed);
            pieces.went();
            continue;
        };
        pieces.lose();
        if pieces.halve(&piece, |_| true, |_, _| false) {
            continue;
        }
        if met.as_ref().is_some_and(|met| met.sqlstate == LOCK_NOT_AVAILABLE) {
            left.skipped += piece.concat().len() as i64;
            continue;
        }
        let mut met = Some(met);
        for (place, rows) in &wanted {
            let leaf = &leaves[*place];
            leaf.as_owner(rules.target, || {
                let (there, changed) = where_they_are(rules, leaf, rows, tally)?;
                let (row, stayed) = still_there(rules, leaf, &there)?;
                left.keep(&stayed, || Reason::new(met.take().flatten(), row));
                left.keep_changed(changed);
                Ok(())
            })?;
        }
        again.extend(piece.concat());
    }
    left.patience = pieces.patience();
    let rest = pieces.rest().concat();
    left.kept_back += rest.len() as i64;
    left.given_up += rest.len() as i64;
    left.again.clear();
    again.extend(rest);
    Ok(again)
}

fn by_leaf(circles: &[&[Linked]]) -> ByLeaf {
    let mut rows = ByLeaf::new();
    circles.iter().copied().flatten().for_each(|linked| rows.entry(linked.place).or_default().push(linked.row));
    rows
}

/// Does `work` as the owner that all these leaves have.
fn as_owner_of_all<T>(leaves: &[&Leaf], rules: &Rules, work: &mut dyn FnMut() -> Result<T>) -> Result<T> {
    match leaves {
        [] => work(),
        [leaf, others @ ..] => leaf.as_owner(rules.target, || as_owner_of_all(others, rules, work)),
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
    let named: Vec<Object> = wanted.keys().flat_map(|place| leaves[*place].table.named_with_it()).collect();
    naming_also(&named, || stream_writing(&delete, Some(tid_array(&tids)), |row| gone.count_removed(row)))?;
    let removed = gone.removed() as usize;
    besides.are_none(removed)?;
    if removed < tids.len() {
        return Ok(None);
    }
    tally.add(gone);
    Ok(Some(removed))
}
