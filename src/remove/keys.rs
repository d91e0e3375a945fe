use std::ops::{ControlFlow, Range};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;

use crate::postgres::citus::{Together, together, wait_on_nodes, with_settings_on_nodes};
use crate::postgres::error::Result;
use crate::postgres::met::Met;
use crate::postgres::stream::{Row, stream, stream_until, stream_writing};
use crate::postgres::subtransaction::attempt;
use crate::rank::on_shards::can_rank_on_shards;
use crate::rank::removable::Removable;
use crate::rank::tally::{RecipeCount, Tally};
use crate::remove::besides::Besides;
use crate::remove::left::{INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE, Left, MESSAGE, Reason};
use crate::remove::pieces::Pieces;
use crate::remove::sought::{Sought, can_be_among_several};
use crate::rules::Rules;
use crate::target::id::Values;
use crate::target::leaf::Leaf;

/// Rows that a statement removes, at most: what it returns is held in memory, some 100 bytes a row.
const AT_ONCE: i64 = 100_000;

/// Recipes whose rows a statement removes, at most.
const RECIPES: usize = 50_000;

/// Recipes whose cutoffs are a longer list to read, on each shard, than its rows are to rank there anew.
const LISTED: usize = 1_000;

/// Ids that are held at a time, to find those of rows that cannot go, and about how many bytes.
const IDS: usize = 10_000;
const BYTES: usize = 10_000_000;

/// Removes rows of a leaf that has no usable positions: for each recipe in `range` (indexes in the tally) those that the run may remove, and
/// no more than it has left. Stops once it has tried `limit` rows. Of the first recipe, so many with the lowest ids have stayed before.
/// Returns the index of the next recipe, or the range's end, and the same of that recipe. `tables` are the target's.
pub fn remove(
    rules: &Rules,
    leaf: &Leaf,
    tables: &[pg_sys::Oid],
    range: Range<usize>,
    (stayed, limit): (usize, usize),
    tally: &mut Tally,
    left: &mut Left,
) -> Result<(usize, usize)> {
    let mut keys = Keys::of(rules, leaf, tables)?;
    // What an emergency run has removed of a recipe before is not known here.
    keys.are_there &= rules.is_regular();
    let room = i64::try_from(limit).unwrap_or(i64::MAX);
    on_nodes(leaf, || keys.remove_recipes(range, stayed as i64, room, tally, left))
}

/// Removes all rows of such a leaf that the run may remove, of which so many have been kept back before.
pub fn remove_all(
    rules: &Rules,
    leaf: &Leaf,
    tables: &[pg_sys::Oid],
    kept_back: i64,
    tally: &mut Tally,
    left: &mut Left,
) -> Result<()> {
    let keys = Keys::of(rules, leaf, tables)?;
    if rules.is_regular() {
        let all = 0..tally.list.len();
        if kept_back == 0 && all.len() > LISTED && has_recipes_in_shards(rules, leaf)? {
            on_nodes(leaf, || keys.remove_ranked(tally))?;
        }
        return remove(rules, leaf, tables, all, (0, usize::MAX), tally, left).map(drop);
    }
    on_nodes(leaf, || {
        let all = Sought::all(rules);
        // Code on the other server may write rows again that have gone.
        let most = if kept_back > 0 { kept_back } else { count(leaf, &all)? };
        keys.remove_where(&all, most, (0, i64::MAX), tally, left).map(drop)
    })
}

fn on_nodes<T>(leaf: &Leaf, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if leaf.is_distributed { with_settings_on_nodes(work) } else { work() }
}

/// Whether each of several shards has all rows of the recipes that it has, and can rank them.
fn has_recipes_in_shards(rules: &Rules, leaf: &Leaf) -> Result<bool> {
    let Some(recipe) = rules.target.recipe_column.clone() else { return Ok(false) };
    Ok(leaf.is_distributed
        && together(leaf.table.oid)? == Together::Of(recipe)
        && leaf.is_all_of(rules.target)?
        && can_rank_on_shards(rules, leaf)?)
}

/// Whether code of the run has changed what it has neither removed nor finds any more. Of a distributed table without triggers, other
/// sessions have.
fn is_whole(rules: &Rules, leaf: &Leaf) -> Result<bool> {
    Ok((!leaf.is_distributed || leaf.table.has_triggers) && leaf.is_all_of(rules.target)?)
}

/// A leaf whose rows are removed by key.
struct Keys<'a> {
    rules: &'a Rules<'a>,
    leaf: &'a Leaf,
    /// The target's other tables: code can remove their rows while the leaf is worked on.
    others: Vec<pg_sys::Oid>,
    /// Whether it has as many rows as a statement is to remove at most.
    are_there: bool,
}

impl<'a> Keys<'a> {
    fn of(rules: &'a Rules<'a>, leaf: &'a Leaf, tables: &[pg_sys::Oid]) -> Result<Keys<'a>> {
        let others = tables.iter().copied().filter(|table| *table != leaf.table.oid).collect();
        Ok(Keys { rules, leaf, others, are_there: is_whole(rules, leaf)? })
    }

    fn remove_recipes(
        &self,
        range: Range<usize>,
        mut stayed: i64,
        mut room: i64,
        tally: &mut Tally,
        left: &mut Left,
    ) -> Result<(usize, usize)> {
        let mut next = range.start;
        while next < range.end && room > 0 && !left.is_over()? {
            let (several, behind) = self.together(&tally.list, next..range.end, room);
            if stayed == 0 && several.is_empty() && behind > next {
                next = behind;
                continue;
            }
            if stayed == 0 && several.len() > 1 {
                room -= several.iter().map(|place| self.rows_of(&tally.list[*place])).sum::<i64>();
                self.remove_several(several, tally, left)?;
                next = behind;
                continue;
            }
            let most = self.rows_of(&tally.list[next]);
            if let Some(stayed) = self.remove_one(next, (stayed, room), tally, left)? {
                return Ok((next, stayed as usize));
            }
            (next, stayed, room) = (next + 1, 0, room - most);
        }
        Ok((next, stayed as usize))
    }

    /// How many rows of a recipe a run may remove still, or had in an emergency run when it started.
    fn rows_of(&self, recipe: &RecipeCount) -> i64 {
        match self.rules.is_regular() {
            true => recipe.cutoff.and(recipe.left).unwrap_or_default().max(0),
            false => recipe.failed,
        }
    }

    /// The first recipes of a range whose rows go in one statement, which are at most so many, and where the others begin.
    fn together(&self, list: &[RecipeCount], range: Range<usize>, room: i64) -> (Vec<usize>, usize) {
        let most = if self.leaf.is_distributed { RECIPES } else { 1 };
        let (mut several, mut rows, end) = (Vec::new(), 0, range.end);
        for place in range {
            let recipe = &list[place];
            let of_recipe = self.rows_of(recipe);
            if of_recipe == 0 {
                continue;
            }
            rows += of_recipe;
            let fits = several.len() < most && rows <= room.min(AT_ONCE);
            if !fits || !can_be_among_several(self.rules.target, recipe) {
                return (several, place);
            }
            several.push(place);
        }
        (several, end)
    }

    /// Removes the rows of several recipes, in one statement if all of them can go; halves the recipes of one that is refused.
    fn remove_several(&self, recipes: Vec<usize>, tally: &mut Tally, left: &mut Left) -> Result<()> {
        let mut stack = vec![recipes];
        while let Some(recipes) = stack.pop() {
            self.leaf.is_still_of(self.rules.target)?;
            if let [recipe] = recipes[..] {
                self.remove_one(recipe, (0, i64::MAX), tally, left)?;
                continue;
            }
            let sought = self.sought(tally, &recipes);
            let removed = attempt(|| {
                let gone = self.delete(&sought)?;
                Ok(self.removed_of(&recipes, &gone, tally).map(|removed| (gone, removed)))
            });
            let Ok(Some((gone, removed))) = removed else {
                removed.err().map(|failure| self.met(failure)).transpose()?;
                let (first, second) = recipes.split_at(recipes.len() / 2);
                stack.extend([second.to_vec(), first.to_vec()]);
                continue;
            };
            tally.add(gone);
            let (mut short, mut missing) = (Vec::new(), 0);
            for (place, removed) in recipes.into_iter().zip(removed) {
                let wanting = self.rows_of(&tally.list[place]) - removed;
                tally.list[place].left.iter_mut().for_each(|left| *left -= removed);
                if wanting > 0 {
                    short.push(place);
                    missing += wanting;
                }
            }
            if missing > 0 {
                self.keep(&self.sought(tally, &short), missing, (0, self.are_there), tally, left)?;
            }
        }
        Ok(())
    }

    /// Removes the rows that are not among the newest of their recipes, if they are no more than were ranked. Those that it leaves go by
    /// their cutoffs.
    fn remove_ranked(&self, tally: &mut Tally) -> Result<()> {
        let recipes: Vec<usize> = (0..tally.list.len()).collect();
        if recipes.iter().map(|place| self.rows_of(&tally.list[*place])).sum::<i64>() > AT_ONCE {
            return Ok(());
        }
        self.leaf.is_still_of(self.rules.target)?;
        let sought = Sought::beyond_newest(self.rules, self.leaf);
        let removed = attempt(|| {
            let gone = self.delete(&sought)?;
            Ok(self.removed_of(&recipes, &gone, tally).map(|removed| (gone, removed)))
        });
        match removed {
            Ok(Some((gone, removed))) => {
                tally.add(gone);
                let of_each = tally.list.iter_mut().zip(removed);
                of_each.for_each(|(recipe, removed)| recipe.left.iter_mut().for_each(|left| *left -= removed));
            }
            Ok(None) => {}
            Err(failure) => drop(self.met(failure)?),
        }
        Ok(())
    }

    fn sought(&self, tally: &Tally, recipes: &[usize]) -> Sought {
        let recipes: Vec<&RecipeCount> = recipes.iter().map(|place| &tally.list[*place]).collect();
        Sought::of_several(self.rules, &recipes)
    }

    /// How many rows of each recipe have gone; `None` if they are more than it had left.
    fn removed_of(&self, recipes: &[usize], gone: &Tally, tally: &mut Tally) -> Option<Vec<i64>> {
        let mut of_all = vec![0; tally.list.len()];
        for gone in &gone.list {
            let place = tally.of_group(gone.recipe_id.as_deref(), gone.policy, gone.status);
            *of_all.get_mut(place)? = gone.removed;
        }
        let removed: Vec<i64> = recipes.iter().map(|place| of_all[*place]).collect();
        let are_right = removed.iter().zip(recipes).all(|(gone, place)| *gone <= self.rows_of(&tally.list[*place]));
        (are_right && removed.iter().sum::<i64>() == gone.removed()).then_some(removed)
    }

    /// Removes the rows of a recipe. Returns as `remove_where` does.
    fn remove_one(&self, place: usize, tried: (i64, i64), tally: &mut Tally, left: &mut Left) -> Result<Option<i64>> {
        let recipe = &tally.list[place];
        let (most, sought) = (self.rows_of(recipe), Sought::of_one(self.rules, recipe));
        let before = tally.removed();
        let stayed = self.remove_where(&sought, most, tried, tally, left)?;
        let removed = tally.removed() - before;
        tally.list[place].left.iter_mut().for_each(|left| *left -= removed);
        Ok(stayed)
    }

    /// Removes rows, but at most so many; in one statement of `AT_ONCE` rows after the other if all of them can go. Counts those that are
    /// left. Tries no more than there is room for, and none of the first so many, which have stayed before. Returns how many with the
    /// lowest ids have stayed then; `None` if none is left to try.
    fn remove_where(
        &self,
        sought: &Sought,
        most: i64,
        (mut stayed, mut room): (i64, i64),
        tally: &mut Tally,
        left: &mut Left,
    ) -> Result<Option<i64>> {
        let id = &self.rules.target.id;
        let (mut here, mut rest) = (sought.clone(), most - stayed);
        if rest > 0 && stayed > 0 {
            let Some(last) = self.last_of(sought, stayed)? else { return Ok(None) };
            here = sought.and(&id.is_behind(&last));
        }
        while rest > 0 {
            self.leaf.is_still_of(self.rules.target)?;
            let at_once = room.min(AT_ONCE);
            let last = if rest > at_once { self.last_of(&here, at_once)? } else { None };
            let (portion, most) = match &last {
                Some(last) => (here.and(&format!("NOT ({})", id.is_behind(last))), at_once),
                None => (here, rest),
            };
            let (before, skipped) = (tally.removed(), left.skipped);
            match attempt(|| self.delete(&portion).map(|gone| Some(gone).filter(|gone| gone.removed() <= most))) {
                Ok(Some(gone)) => tally.add(gone),
                Ok(None) => self.remove_around(&portion, most, tally, left)?,
                Err(failure) => {
                    self.met(failure)?;
                    self.remove_around(&portion, most, tally, left)?;
                }
            }
            let removed = tally.removed() - before;
            let mut kept = 0;
            if removed < most {
                let (skipped, are_there) = (left.skipped - skipped, self.are_there && last.is_none());
                kept = self.keep(&portion, most - removed, (skipped, are_there), tally, left)?;
            }
            (stayed, rest, room) = (stayed + kept, rest - removed - kept, room - most);
            let Some(last) = last else { break };
            if room <= 0 || left.is_over()? {
                return Ok(Some(stayed));
            }
            here = sought.and(&id.is_behind(&last));
        }
        Ok(None)
    }

    /// Counts rows that are still there, at most so many, of which some have been skipped. If all of the others should be there, too, code
    /// of the run has changed them. Returns how many are.
    fn keep(
        &self,
        sought: &Sought,
        most: i64,
        (skipped, are_there): (i64, bool),
        tally: &mut Tally,
        left: &mut Left,
    ) -> Result<i64> {
        let target = self.rules.target;
        let group = self.rules.policies.group_columns(target, &target.recipe_key());
        let columns = format!("{group}, pg_catalog.left({}, {MESSAGE})", target.id.as_text());
        let (mut known, mut first) = (Vec::new(), None);
        stream(&sought.select(self.leaf, &columns, ""), |row| {
            // SAFETY: the column is a text.
            first.get_or_insert_with(|| unsafe { row.text(3) }.map(str::to_owned));
            if (known.len() as i64) < most {
                known.push(Removable::new(pg_sys::ItemPointerData::default(), tally.of_row(row)));
            }
        })?;
        let rows = known.len() as i64;
        if left.is_over()? {
            left.untried += rows;
            return Ok(rows);
        }
        known.truncate((rows - skipped).max(0) as usize);
        if !known.is_empty() {
            left.kept_back += known.len() as i64;
            left.again.extend(known);
            left.reason.get_or_insert_with(|| Reason::new(None, first.flatten()));
        }
        if are_there {
            left.keep_changed((most - rows) as usize);
        }
        Ok(rows)
    }

    /// The id of the row at this place, the lowest ids first; `None` if they are fewer.
    fn last_of(&self, sought: &Sought, place: i64) -> Result<Option<Values>> {
        let (ids, order) = self.ids();
        let order = format!("{order} OFFSET {} LIMIT 1", place - 1);
        let mut found = None;
        stream(&sought.select(self.leaf, &ids, &order), |row| found = Some(self.id_of(row)))?;
        Ok(found)
    }

    /// The columns of the id, and the order of the rows by them.
    fn ids(&self) -> (String, String) {
        let id = &self.rules.target.id;
        let texts: Vec<String> = id.columns.iter().map(|(_, column)| column.as_text()).collect();
        (texts.join(", "), format!("ORDER BY {}", id.order()))
    }

    fn id_of(&self, row: &Row) -> Values {
        // SAFETY: the columns are texts.
        let text = |column| unsafe { row.text(column) }.map(str::to_owned);
        (0..self.rules.target.id.columns.len()).map(text).collect()
    }

    /// Removes those of the rows that can go, but tries at most so many, the lowest ids first: halves what is refused until the ids
    /// are found of those that cannot.
    fn remove_around(&self, sought: &Sought, most: i64, tally: &mut Tally, left: &mut Left) -> Result<()> {
        let (id, (texts, order)) = (&self.rules.target.id, self.ids());
        let mut beyond = "true".to_owned();
        let mut most = most as usize;
        while most > 0 {
            self.leaf.is_still_of(self.rules.target)?;
            let next = sought.and(&beyond).select(self.leaf, &texts, &format!("{order} LIMIT {}", most.min(IDS)));
            let (mut ids, mut bytes): (Vec<Values>, usize) = Default::default();
            stream_until(&next, None, |row| {
                let values = self.id_of(row);
                bytes += values.iter().flatten().map(String::len).sum::<usize>();
                ids.push(values);
                if bytes < BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            let Some(last) = ids.last() else { return Ok(()) };
            beyond = id.is_behind(last);
            most -= ids.len();
            let of_ids = |ids: &[Values]| self.delete(&sought.and(&id.is_one_of(ids)));
            let mut pieces = Pieces::of(&ids, left.patience);
            while let Some(piece) = pieces.next(|_| true) {
                if left.is_over()? {
                    return Ok(());
                }
                match attempt(|| of_ids(&piece).map(Some)) {
                    Ok(gone) => {
                        gone.into_iter().for_each(|gone| tally.add(gone));
                        pieces.went();
                    }
                    Err(failure) => {
                        let met = self.met(failure)?;
                        pieces.lose();
                        if met.sqlstate == INSUFFICIENT_PRIVILEGE {
                            // Raises the error again if it is about the table.
                            of_ids(&[])?;
                        }
                        if pieces.halve(&piece, |_| true, |_, _| false) {
                            continue;
                        }
                        if met.sqlstate == LOCK_NOT_AVAILABLE {
                            left.skipped += piece.len() as i64;
                        } else if left.reason.is_none() {
                            let row = piece.first().map(|row| id.text_of(row)).transpose()?.flatten();
                            left.reason = Some(Reason::new(Some(met), row));
                        }
                    }
                }
            }
            left.patience = pieces.patience();
            left.given_up += pieces.rest().len() as i64;
        }
        Ok(())
    }

    /// What a statement on rows has met. Once one has waited in vain, the others do not wait.
    fn met(&self, failure: CaughtError) -> Result<Met> {
        let met = Met::on_a_row(failure);
        if self.leaf.is_distributed && met.sqlstate == LOCK_NOT_AVAILABLE {
            wait_on_nodes(1)?;
        }
        Ok(met)
    }

    /// Removes rows, and returns how many per recipe. Errors: those of `Besides::are_none`.
    fn delete(&self, sought: &Sought) -> Result<Tally> {
        let mut gone = Tally::of(self.rules.target, &self.rules.policies);
        let besides = Besides::of(self.leaf, &self.others);
        stream_writing(&sought.delete(self.rules, self.leaf), None, |row| gone.count_one(row))?;
        besides.are_none(0)?;
        Ok(gone)
    }
}

fn count(leaf: &Leaf, sought: &Sought) -> Result<i64> {
    let mut rows = 0;
    stream(&sought.select(leaf, "pg_catalog.count(*)", ""), |row| rows = row.number(0).unwrap_or_default())?;
    Ok(rows)
}
