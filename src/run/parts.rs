use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use backlog_cleanup_report::Mode;
use pgrx::prelude::*;

use crate::history::batches;
use crate::history::error::At;
use crate::history::run::Run;
use crate::plan::cutoff::Cutoffs;
use crate::plan::divide::blocks_at_once;
use crate::plan::part::{self, Part, Task};
use crate::postgres::changes::is_updated;
use crate::postgres::error::Result;
use crate::postgres::snapshot::with_new_snapshot;
use crate::postgres::table::{Table, family};
use crate::rank::removable::{PerLeaf, Removable};
use crate::remove::find::{Place, find, find_but};
use crate::remove::heap::{follow, unchanged_since};
use crate::remove::in_time::{Sizes, remove_in_time};
use crate::remove::keys;
use crate::remove::left::{Left, Reason, TOO_LARGE};
use crate::remove::order::in_order;
use crate::remove::steps::{one_pass, ordered, rows_of};
use crate::rules::Rules;
use crate::run::{failure, ground};
use crate::target::Target;
use crate::target::leaf::{Leaf, Reach, oids};

/// How long a batch takes parts of which nothing goes.
const IN_VAIN: Duration = Duration::from_millis(500);

/// How much of a batch is left.
#[derive(Clone, Copy)]
struct Room {
    rows: usize,
    blocks: usize,
}

impl Room {
    /// Whether what has been taken since fits once more.
    fn is_for_as_much(&self, since: Room) -> bool {
        let fits = |now: usize, before: usize| now > 0 && 2 * now >= before;
        fits(self.rows, since.rows) && fits(self.blocks, since.blocks)
    }
}

/// A batch at work.
struct Batch<'a> {
    run: &'a Run,
    target: &'a Target,
    /// The target's tables.
    tables: Vec<pg_sys::Oid>,
    cutoffs: &'a mut Cutoffs,
    left: &'a mut Left,
    room: Room,
    /// Whether it has removed nothing on another server.
    is_here: bool,
}

/// Removes a batch: rows of a part, and of the parts behind it while one like it still fits. A part that was rolled back before
/// is tried alone. Returns whether all of it is on this server.
pub fn remove_parts(
    run: &Run,
    target: &Target,
    first: &mut Part,
    cutoffs: &mut Cutoffs,
    left: &mut Left,
) -> Result<bool> {
    let room = Room { rows: run.rows_at_once() as usize, blocks: blocks_at_once() };
    let started = Instant::now();
    let patience = left.patience;
    let is_in_vain = patience.is_short();
    let tables = family(target.table.oid)?;
    let mut batch = Batch { run, target, tables, cutoffs, left, room, is_here: true };
    let mut is_done = batch.remove_part(first)?;
    let (mut place, mut before) = (first.place(), room);
    while first.attempts == 0 && !batch.left.is_over()? {
        // Where nothing has gone, rows that stay take no room, but time.
        if is_in_vain && is_done && batch.cutoffs.tally.removed() == 0 && started.elapsed() < IN_VAIN {
            (batch.room, before) = (room, room);
        }
        if !batch.room.is_for_as_much(before) {
            break;
        }
        let Some(mut part) = Part::take(run.id, Some(place))?.filter(|part| part.pass == first.pass) else { break };
        before = batch.room;
        // What the parts before were refused says little of this one.
        batch.left.patience = patience;
        is_done = batch.remove_part(&mut part)?;
        place = part.place();
    }
    for table in batch.tables.iter().filter(|table| is_updated(**table)) {
        let leaf = Leaf::still_of(*table, target)?.filter(|leaf| leaf.reach == Reach::Position);
        leaf.map_or(Ok(()), |leaf| first.look_again(&leaf))?;
    }
    Ok(batch.is_here)
}

impl Batch<'_> {
    /// Removes rows of a part as far as there is room, and saves where the next batch continues. Returns whether the part is done.
    fn remove_part(&mut self, part: &mut Part) -> Result<bool> {
        failure::works_on(At {
            words: format!(
                "table {}, after {} batches",
                Table::of(part.leaf)?.map_or("(dropped)".into(), |leaf| leaf.name),
                self.run.batches
            ),
            tables: self.target.tables().into_iter().chain([part.leaf]).collect(),
        });
        if let Task::Across { rows, lsn } = &part.task {
            return self.remove_across(part, rows, *lsn);
        }
        // With this lock no session can detach or rewrite the leaf until the batch is committed.
        // SAFETY: the lock is released with the transaction.
        unsafe { pg_sys::LockRelationOid(part.leaf, pg_sys::RowExclusiveLock as i32) };
        let Some(leaf) = Leaf::still_of(part.leaf, self.target)? else {
            ground::has_its_table(self.run, self.target)?;
            return part.advance((part.steps, 0), 0, (0, 0)).map(|()| true);
        };
        let is_found = self.run.reading.as_ref().is_none_or(|reading| reading.finds(&leaf));
        ground::is_read_as_before(self.run, self.target, is_found && part.columns == leaf.numbers)?;
        ground::is_reached_as_before(self.run, &leaf, matches!(part.task, Task::Keys { .. }))?;
        if part.restart_if_rewritten()? {
            return Ok(false);
        }
        let removed = self.cutoffs.tally.removed();
        let Left { kept_back, given_up, untried, .. } = *self.left;
        part.take_over()?;
        let next = leaf.as_owner(self.target, || self.remove_next(&leaf, part))?;
        let (kept_back, given_up) = (self.left.kept_back - kept_back, self.left.given_up - given_up);
        let again = std::mem::take(&mut self.left.again);
        self.give_back(&again);
        part.try_again(again, kept_back, given_up)?;
        let mut counted_before = part.counted_before(next.0, kept_back);
        if !part.is_looking() {
            counted_before = (counted_before - (self.left.untried - untried)).max(0);
        }
        let given_up_before = counted_before.min(part.given_up);
        self.left.kept_back -= counted_before;
        self.left.given_up -= given_up_before;
        part.advance(next, self.cutoffs.tally.removed() - removed, (counted_before, given_up_before))?;
        Ok(next.0 >= part.steps)
    }

    /// Removes rows of circles that have rows of several leaves. Returns true: the part is done.
    fn remove_across(&mut self, part: &Part, rows: &[(pg_sys::Oid, Removable)], lsn: u64) -> Result<bool> {
        let mut leaves = Vec::new();
        for table in part::tables_of(rows) {
            // SAFETY: the lock is released with the transaction.
            unsafe { pg_sys::LockRelationOid(table, pg_sys::RowExclusiveLock as i32) };
            let Some(leaf) = Leaf::still_of(table, self.target)? else {
                ground::has_its_table(self.run, self.target)?;
                return part.advance((part.steps, 0), 0, (0, 0)).map(|()| true);
            };
            ground::is_reached_as_before(self.run, &leaf, false)?;
            leaves.push(leaf);
        }
        let columns: Vec<i16> = leaves.iter().flat_map(|leaf| leaf.numbers.clone()).collect();
        ground::is_read_as_before(self.run, self.target, part.columns == columns)?;
        if part.is_lost(&oids(&leaves))? {
            return Ok(true);
        }
        let rules = self.run.rules(self.target, &self.cutoffs.policies);
        let mut known = PerLeaf::new();
        for leaf in &leaves {
            let is_its = |(table, row): &(pg_sys::Oid, Removable)| (*table == leaf.table.oid).then_some(*row);
            let mut rows: Vec<Removable> = rows.iter().filter_map(is_its).collect();
            rows.sort_unstable();
            known.push(leaf.as_owner(self.target, || self.known(&rules, leaf, &rows, lsn))?);
        }
        let (mut steps, held) = ordered(with_new_snapshot(|| in_order(&leaves, known, usize::MAX))?);
        steps.extend(held);
        let removed = self.cutoffs.tally.removed();
        let Left { given_up, untried, .. } = *self.left;
        let mut again = Vec::new();
        let may_be_slow = leaves.iter().any(|leaf| leaf.table.has_triggers || leaf.table.has_rules);
        let mut sizes = Sizes::of(may_be_slow);
        for (place, mut rows) in steps {
            while rows.kept_back() > 0 {
                if self.left.is_over()? {
                    self.left.untried += rows.kept_back();
                    break;
                }
                let room =
                    self.run.rows_left().map_or(i64::MAX, |rows| rows - self.cutoffs.tally.removed()).max(0) as usize;
                let together = rows.together();
                let mut rest = rows.split_off(room.min(sizes.next().max(together)));
                if rows.kept_back() > 0 {
                    let (count, started) = (rows.kept_back() as usize, Instant::now());
                    let (tally, step) = (&mut self.cutoffs.tally, vec![(place, rows)]);
                    again.extend(one_pass(&rules, &leaves, &self.tables, step, tally, self.left)?);
                    sizes.took(count, started);
                } else if room == 0 || self.run.max_rows.is_none_or(|most| together as i64 <= most) {
                    batches::stop(self.run.id)?;
                    self.left.untried += rest.kept_back();
                    break;
                } else {
                    let others = rest.split_off(together);
                    self.left.kept_back += rest.kept_back();
                    self.left.reason.get_or_insert_with(|| Reason::without_error(TOO_LARGE));
                    again.push((place, rest));
                    rest = others;
                }
                rows = rest;
            }
        }
        let again: Vec<_> = again.iter().flat_map(|step| rows_of(step, &leaves)).collect();
        again.iter().for_each(|(_, row)| self.give_back(&[*row]));
        part.try_again_across(again, &leaves, self.left.given_up - given_up)?;
        let counted_before = (part.kept_back - (self.left.untried - untried)).max(0);
        let given_up_before = counted_before.min(part.given_up);
        self.left.kept_back -= counted_before;
        self.left.given_up -= given_up_before;
        self.room.rows = self.room.rows.saturating_sub(rows.len());
        self.room.blocks = self.room.blocks.saturating_sub(rows.len());
        part.advance((part.steps, 0), self.cutoffs.tally.removed() - removed, (counted_before, given_up_before))?;
        Ok(true)
    }

    /// Lets as many other rows of their recipes go as have stayed.
    fn give_back(&mut self, stayed: &[Removable]) {
        for recipe in stayed.iter().filter_map(Removable::recipe) {
            self.cutoffs.tally.list[recipe].left.iter_mut().for_each(|left| *left += 1);
        }
    }

    /// The most rows of a part that the batch may remove: none of one that only counts. An emergency run that looks again, or by key, takes no more than there were at
    /// its start, whatever code has turned into failed rows since.
    fn most(&self, part: &Part) -> usize {
        if !part.is_worth_while {
            return 0;
        }
        let is_by_key = matches!(part.task, Task::Keys { .. });
        if !is_by_key && (part.pass == 1 || !part.is_looking()) || self.run.mode == Mode::Regular {
            return self.room.rows;
        }
        let tally = &self.cutoffs.tally;
        self.room.rows.min((tally.failed() - self.run.removed - tally.removed()).max(0) as usize)
    }

    /// Removes rows of a part. Returns where to continue (the steps done, the offset in the next block).
    fn remove_next(&mut self, leaf: &Leaf, part: &Part) -> Result<(i64, usize)> {
        let rules = self.run.rules(self.target, &self.cutoffs.policies);
        let limit = self.most(part);
        match &part.task {
            // Done before.
            Task::Across { .. } => Ok((part.steps, 0)),
            Task::Keys { .. } if limit == 0 => Ok((part.steps, 0)),
            // Of a foreign table an emergency run removes all rows at once: then it knows which of them code has changed instead.
            Task::Keys { first, .. } if !rules.is_regular() && !leaf.is_distributed && self.run.max_rows.is_none() => {
                self.is_here = false;
                if *first == 0 {
                    let tally = &mut self.cutoffs.tally;
                    keys::remove_all(&rules, leaf, &self.tables, part.kept_back, tally, self.left)?;
                    self.room.rows = self.room.rows.saturating_sub(tally.removed() as usize);
                }
                Ok((part.steps, 0))
            }
            Task::Keys { first, stayed, .. } => {
                self.is_here = false;
                let tried = |batch: &Self| batch.cutoffs.tally.removed() + batch.left.kept_back + batch.left.skipped;
                let before = tried(self);
                let recipes = (first + part.steps_done) as usize..(first + part.steps) as usize;
                let tally = &mut self.cutoffs.tally;
                let (next, stayed) =
                    keys::remove(&rules, leaf, &self.tables, recipes, (*stayed, limit), tally, self.left)?;
                self.room.rows = limit.saturating_sub((tried(self) - before) as usize);
                Ok((next as i64 - first, stayed))
            }
            Task::Positions { rows, lsn, in_circles } => {
                let rows = &rows[part.steps_done as usize..];
                // Circles are not cut.
                let limit = if *in_circles && self.run.max_rows.is_none() { rows.len() } else { limit };
                let rows = &rows[..rows.len().min(limit)];
                let known = self.known(&rules, leaf, rows, *lsn)?;
                let tally = &mut self.cutoffs.tally;
                remove_in_time(&rules, leaf, &self.tables, &known, *in_circles, tally, self.left)?;
                self.room.rows = self.room.rows.saturating_sub(rows.len());
                let pages = rows.chunk_by(|row, next| row.block() == next.block()).count();
                self.room.blocks = self.room.blocks.saturating_sub(pages);
                Ok((part.steps_done + rows.len() as i64, 0))
            }
            Task::Blocks { first, next_offset } => {
                let next = first + part.steps_done;
                let end = (next + self.room.blocks as i64).min(first + part.steps);
                // Where nothing more may go, counts what is still there of the rows that were kept back.
                let is_counted = limit == 0;
                if is_counted && part.kept_back == 0 {
                    return Ok((part.steps, 0));
                }
                let limit = if is_counted { self.room.rows.min(part.kept_back as usize) } else { limit };
                let place = Place::Blocks { after: (next as u32, *next_offset), end: end as u32 };
                let mut rows = self.look(&rules, leaf, part, place, limit)?;
                self.room.rows -= rows.len();
                self.room.blocks -= (end - next) as usize;
                let next = match rows.last() {
                    Some(last) if rows.len() == limit => (i64::from(last.block()) - first, last.offset().into()),
                    _ => (end - first, 0),
                };
                if part.pass % 2 == 0 {
                    rows.reverse();
                }
                if is_counted {
                    self.left.kept_back += rows.len() as i64;
                    self.left.given_up += part.given_up.min(rows.len() as i64);
                } else {
                    let tally = &mut self.cutoffs.tally;
                    remove_in_time(&rules, leaf, &self.tables, &rows, false, tally, self.left)?;
                }
                Ok(next)
            }
        }
    }

    /// Finds rows to remove in blocks, but for those that the run tries and counts as rows of several leaves. If others may have come to
    /// their recipes since these were ranked, ranks them anew first.
    fn look(&mut self, rules: &Rules, leaf: &Leaf, part: &Part, place: Place, limit: usize) -> Result<Vec<Removable>> {
        let at = |row: &Removable| (row.block(), row.offset());
        let across: HashSet<_> = follow(leaf, &part.in_circles_across()?).iter().map(at).collect();
        let horizon = self.cutoffs.horizon;
        let left: Vec<_> = self.cutoffs.tally.list.iter().map(|recipe| recipe.left).collect();
        let mut are_ranked = true;
        let found = find_but(rules, leaf, place, limit, &mut self.cutoffs.tally, |row, made_by| {
            are_ranked &= !horizon.is_before(made_by);
            !across.contains(&at(&row))
        })?;
        if are_ranked || !rules.is_regular() {
            return Ok(found);
        }
        self.cutoffs.tally.list.iter_mut().zip(left).for_each(|(recipe, left)| recipe.left = left);
        self.cutoffs.rank_anew(rules)?;
        find_but(rules, leaf, place, limit, &mut self.cutoffs.tally, |row, _| !across.contains(&at(&row)))
    }

    /// Of rows that were removable when the WAL was at `lsn`, those that are so still, as rows of the same recipes, in their order:
    /// rechecks those whose pages have changed since.
    fn known(&mut self, rules: &Rules, leaf: &Leaf, rows: &[Removable], lsn: u64) -> Result<Vec<Removable>> {
        let tally = &mut self.cutoffs.tally;
        let (mut known, others) = unchanged_since(leaf, lsn, rows);
        known.retain(|row| row.recipe().is_none_or(|recipe| tally.list[recipe].take()));
        if others.is_empty() {
            return Ok(known);
        }
        // Other workers, and parts before in this batch, may have moved them.
        let (now, found) = with_new_snapshot(|| {
            let now = follow(leaf, &others);
            let tids: Vec<_> = now.iter().map(Removable::tid).collect();
            find(rules, leaf, Place::Positions(&tids), usize::MAX, tally).map(|found| (now, found))
        })?;
        let at = |row: &Removable| (row.block(), row.offset());
        let known: HashMap<_, _> = known.iter().map(|row| (at(row), *row)).collect();
        let found: HashMap<_, _> = found.iter().map(|row| (at(row), *row)).collect();
        let moved: HashMap<_, _> = others.iter().zip(&now).map(|(row, now)| (at(row), at(now))).collect();
        let is_same = |row: &Removable, now: &Removable| row.recipe().is_none_or(|recipe| now.recipe() == Some(recipe));
        let still = |row: &Removable| {
            let now = || found.get(moved.get(&at(row))?).filter(|now| !rules.is_regular() || is_same(row, now));
            known.get(&at(row)).or_else(now).copied()
        };
        Ok(rows.iter().filter_map(still).collect())
    }
}
