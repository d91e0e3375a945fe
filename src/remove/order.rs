use std::collections::{HashSet, VecDeque};

use pgrx::prelude::*;

use crate::postgres::datum::tid_array;
use crate::postgres::error::Result;
use crate::postgres::names::{Object, naming_also};
use crate::postgres::now::{one_now, rows_now};
use crate::postgres::owner::reading_as_owner_of;
use crate::postgres::snapshot::with_new_snapshot;
use crate::postgres::stream::stream_until;
use crate::rank::removable::{PerLeaf, Removable};
use crate::remove::circles::circles;
use crate::remove::heap::follow;
use crate::remove::pieces::CHUNK;
use crate::target::leaf::{Leaf, Reach, oids};

/// Rows of a leaf, given by its index in the list of leaves.
pub type OfLeaf = (usize, Vec<Removable>);

/// Removable rows in the order in which they can go.
#[derive(Default)]
pub struct Ordered {
    pub steps: Vec<OfLeaf>,
    /// Rows that reference each other in circles, and those that these reference: each of these lists goes in one statement.
    pub circles: Vec<OfLeaf>,
    /// The same where a circle has rows of several leaves; and rows in their order where that goes from leaf to leaf.
    pub across: Vec<Vec<Linked>>,
    /// Rows that rows which stay reference, directly or through others.
    pub held: Vec<OfLeaf>,
}

/// A row of a list that has rows of several leaves.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Linked {
    /// The leaf, by its index in the list of leaves.
    pub place: usize,
    pub row: Removable,
    /// Whether it is the first of its circle, or in none.
    pub is_first: bool,
}

/// Steps of fewer rows, on average, go in statements on several leaves.
const SHORT: usize = 1_000;

/// A foreign key between rows of a target.
struct Key {
    /// The referenced leaf.
    to: pg_sys::Oid,
    /// The referencing table `c`, qualified, with ONLY before a plain one, and the one through which it references.
    from: String,
    /// The condition that a row `p` of the one is referenced by a row of the other.
    matches: String,
    /// What these name.
    named: Vec<Object>,
    /// Whether a referencing row holds the referenced one: NO ACTION, RESTRICT, or CASCADE, which would take it along.
    holds: bool,
    /// Whether a trigger or a rule can refuse its CASCADE without an error: then PostgreSQL removes the referenced row all the same.
    is_silent: bool,
}

/// Whether rows of the leaves reference each other.
pub fn reference_each_other(leaves: &[Leaf]) -> Result<bool> {
    keys(&oids(leaves)).map(|keys| !keys.is_empty())
}

/// Whether rows of the leaves hold each other, so that their order matters.
pub fn have_an_order(leaves: &[Leaf]) -> Result<bool> {
    Ok(reference_each_other(leaves)? || hold_each_other(leaves)?)
}

/// Whether the deletion of a row can leave rows of these tables that reference it: PostgreSQL does not look whether a trigger or a rule
/// has refused a CASCADE.
pub fn can_dangle(leaf: &Leaf, tables: &[pg_sys::Oid]) -> Result<bool> {
    let has_code = leaf.table.has_triggers || leaf.table.has_rules;
    Ok(has_code && keys(tables)?.iter().any(|key| key.is_silent))
}

/// Puts each row behind the rows that reference it. Without a foreign key between rows of the leaves, the order stays, or is that of the
/// younger rows first if rows may hold each other through another table.
///
/// This is Kahn's algorithm: a row is ready when no row before which it must not go is left. It takes 12 bytes per row and 8 per
/// reference. Rows of one leaf stay together as long as there are any that are ready. Those that never are by all references, go in
/// the order of those that hold. What is left then is in circles or behind them; circles come together in lists of at most `size` rows, or
/// of one circle.
pub fn in_order(leaves: &[Leaf], mut rows: PerLeaf, size: usize) -> Result<Ordered> {
    // What is reached by key has positions that mean nothing.
    leaves.iter().zip(&mut rows).filter(|(leaf, _)| leaf.reach == Reach::Key).for_each(|(_, rows)| rows.clear());
    let tables = oids(leaves);
    let keys = keys(&tables)?;
    if keys.is_empty() {
        if hold_each_other(leaves)? {
            rows.iter_mut().for_each(|rows| rows.sort_unstable_by(|a, b| b.cmp(a)));
        }
        return Ok(Ordered { steps: rows.into_iter().enumerate().collect(), ..Ordered::default() });
    }
    for (leaf, rows) in leaves.iter().zip(&mut rows) {
        *rows = follow(leaf, rows);
        rows.sort_unstable();
    }
    let mut graph = Graph::of(rows);
    for (place, leaf) in leaves.iter().enumerate() {
        for key in keys.iter().filter(|key| key.to == leaf.table.oid) {
            graph.read(leaf, &tables, place, key)?;
        }
    }
    Ok(graph.sort(hold_each_other(leaves)?, size))
}

/// Whether rows of the leaves hold each other through other tables: rows of these go with them, or with each other, and rows of the
/// leaves reference them. Who references is younger, as a rule.
fn hold_each_other(leaves: &[Leaf]) -> Result<bool> {
    one_now::<bool>(
        "WITH RECURSIVE along (oid) AS (
             SELECT pg_catalog.unnest($1)
             UNION
             SELECT k.conrelid FROM pg_catalog.pg_constraint k JOIN along ON k.confrelid OPERATOR(pg_catalog.=) along.oid
             WHERE k.contype OPERATOR(pg_catalog.=) 'f' AND k.confdeltype OPERATOR(pg_catalog.=) 'c')
         SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint there JOIN along ON there.confrelid OPERATOR(pg_catalog.=) along.oid
                        WHERE there.contype OPERATOR(pg_catalog.=) 'f' AND there.conrelid OPERATOR(pg_catalog.=) ANY ($1)
                          AND along.oid OPERATOR(pg_catalog.<>) ALL ($1))",
        &[oids(leaves).into()],
    )
    .map(|hold| hold == Some(true))
}

/// The foreign keys from the leaves, or a partitioned table above them, to one of them. That of a plain table covers its own rows only.
/// So do rows of another table of the same owner reference that go with a row of the leaves by ON DELETE CASCADE, and hold another.
/// None where these tables, or partitions beside them, have several owners: who reads the table above would run code of each. Then rows
/// go in any order, in more passes.
fn keys(tables: &[pg_sys::Oid]) -> Result<Vec<Key>> {
    rows_now(
        "WITH RECURSIVE family (oid) AS (
             SELECT pg_catalog.unnest($1)
             UNION
             SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN family ON i.inhrelid OPERATOR(pg_catalog.=) family.oid
             JOIN pg_catalog.pg_class part ON part.oid OPERATOR(pg_catalog.=) family.oid AND part.relispartition),
         key AS (
             SELECT k.oid, k.conrelid, k.confrelid, k.confdeltype, k.conpfeqop, k.conparentid,
                    k.conrelid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM family) AS is_direct,
                    NOT c.relforcerowsecurity AS is_open,
                    pg_catalog.format('%s%I.%I', CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'r' THEN 'ONLY ' END, n.nspname, c.relname) AS name,
                    -- With the operator's own types, as PostgreSQL's checks: for the columns' types anybody may have made another one.
                    (SELECT pg_catalog.string_agg(pg_catalog.format('%%1$s.%s::%s.%s OPERATOR(%s.%s) %%2$s.%s::%s.%s', name[1], name[2],
                                                                    name[3], name[4], name[5], name[6], name[7], name[8]), ' AND ')
                     FROM ROWS FROM (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey), pg_catalog.unnest(k.conpfeqop))
                          AS pair (here, there, op)
                     JOIN pg_catalog.pg_attribute here ON here.attrelid OPERATOR(pg_catalog.=) k.conrelid
                                                      AND here.attnum OPERATOR(pg_catalog.=) pair.here
                     JOIN pg_catalog.pg_attribute there ON there.attrelid OPERATOR(pg_catalog.=) k.confrelid
                                                       AND there.attnum OPERATOR(pg_catalog.=) pair.there
                     JOIN pg_catalog.pg_operator op ON op.oid OPERATOR(pg_catalog.=) pair.op
                     JOIN pg_catalog.pg_namespace o ON o.oid OPERATOR(pg_catalog.=) op.oprnamespace
                     JOIN pg_catalog.pg_type l ON l.oid OPERATOR(pg_catalog.=) op.oprleft
                     JOIN pg_catalog.pg_namespace ln ON ln.oid OPERATOR(pg_catalog.=) l.typnamespace
                     JOIN pg_catalog.pg_type r ON r.oid OPERATOR(pg_catalog.=) op.oprright
                     JOIN pg_catalog.pg_namespace rn ON rn.oid OPERATOR(pg_catalog.=) r.typnamespace
                     CROSS JOIN LATERAL (
                         SELECT pg_catalog.array_agg(pg_catalog.replace(word, '%', '%%') ORDER BY place)
                         FROM pg_catalog.unnest(ARRAY[
                                  pg_catalog.quote_ident(there.attname), pg_catalog.quote_ident(ln.nspname),
                                  pg_catalog.quote_ident(l.typname), pg_catalog.quote_ident(o.nspname), op.oprname::pg_catalog.text,
                                  pg_catalog.quote_ident(here.attname), pg_catalog.quote_ident(rn.nspname),
                                  pg_catalog.quote_ident(r.typname)]) WITH ORDINALITY AS of_pair (word, place)) names (name)) AS matches,
                    ARRAY(SELECT pg_catalog.unnest(ARRAY[op.oprleft, op.oprright]) FROM pg_catalog.pg_operator op
                          WHERE op.oid OPERATOR(pg_catalog.=) ANY (k.conpfeqop)) AS types
             FROM pg_catalog.pg_constraint k
             JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.conrelid
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
             WHERE k.contype OPERATOR(pg_catalog.=) 'f' AND k.confrelid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM family)
               AND NOT EXISTS (WITH RECURSIVE tree (oid) AS (
                                   SELECT k.conrelid
                                   UNION
                                   SELECT i.inhrelid FROM pg_catalog.pg_inherits i
                                   JOIN tree ON i.inhparent OPERATOR(pg_catalog.=) tree.oid)
                               SELECT FROM tree JOIN pg_catalog.pg_class part ON part.oid OPERATOR(pg_catalog.=) tree.oid
                               WHERE part.relowner OPERATOR(pg_catalog.<>) ALL (
                                   SELECT relowner FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) ANY ($1)))
               AND 1 OPERATOR(pg_catalog.=) (SELECT pg_catalog.count(DISTINCT relowner) FROM pg_catalog.pg_class
                                             WHERE oid OPERATOR(pg_catalog.=) ANY ($1)))
         SELECT confrelid, pg_catalog.format('%s c', name), pg_catalog.format(matches, 'p', 'c'),
                confdeltype OPERATOR(pg_catalog.=) ANY (ARRAY['a', 'r', 'c']::pg_catalog.\"char\"[]), ARRAY[conrelid], conpfeqop, types,
                confdeltype OPERATOR(pg_catalog.=) 'c'
                AND (EXISTS (SELECT FROM pg_catalog.pg_trigger t
                             -- BEFORE DELETE FOR EACH ROW.
                             WHERE t.tgrelid OPERATOR(pg_catalog.=) ANY ($1) AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'
                               AND t.tgtype OPERATOR(pg_catalog.&) 11::pg_catalog.int2 OPERATOR(pg_catalog.=) 11::pg_catalog.int2)
                     OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r
                                WHERE r.ev_class OPERATOR(pg_catalog.=) ANY ($1) AND r.ev_type OPERATOR(pg_catalog.=) '4'))
         FROM key
         WHERE is_direct AND confrelid OPERATOR(pg_catalog.=) ANY ($1)
         UNION ALL
         -- A row of another table that holds a row, and goes with another row.
         SELECT holding.confrelid,
                pg_catalog.format('%s d JOIN %s%I.%I c ON %s', holding.name,
                                  CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'r' THEN 'ONLY ' END, n.nspname, c.relname,
                                  pg_catalog.format(going.matches, 'c', 'd')),
                pg_catalog.format(holding.matches, 'p', 'd'), true, ARRAY[holding.conrelid, going.confrelid],
                pg_catalog.array_cat(holding.conpfeqop, going.conpfeqop), pg_catalog.array_cat(holding.types, going.types), false
         FROM key holding
         JOIN key going ON going.conrelid OPERATOR(pg_catalog.=) holding.conrelid AND going.confdeltype OPERATOR(pg_catalog.=) 'c'
              AND going.conparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
         JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) going.confrelid
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
         WHERE NOT holding.is_direct AND holding.is_open AND holding.confdeltype OPERATOR(pg_catalog.=) ANY (ARRAY['a', 'r']::pg_catalog.\"char\"[])
           AND holding.confrelid OPERATOR(pg_catalog.=) ANY ($1)",
        &[tables.to_vec().into()],
        |row| {
            Ok(Key {
                to: row.get(1)?.unwrap_or(pg_sys::InvalidOid),
                from: row.get(2)?.unwrap_or_default(),
                matches: row.get(3)?.unwrap_or_default(),
                holds: row.get(4)?.unwrap_or_default(),
                is_silent: row.get(8)?.unwrap_or_default(),
                named: [
                    (pg_sys::RelationRelationId, row.get::<Vec<pg_sys::Oid>>(5)?.unwrap_or_default()),
                    (pg_sys::OperatorRelationId, row.get(6)?.unwrap_or_default()),
                    (pg_sys::TypeRelationId, row.get(7)?.unwrap_or_default()),
                ]
                .into_iter()
                .flat_map(|(class, oids)| oids.into_iter().map(move |oid| (class, oid)))
                .collect(),
            })
        },
    )
}

/// The rows of a statement that was refused, while those go that can: which of them wait for others, and which are held by rows that stay.
pub struct Waiting {
    graph: Graph,
    /// The circle of each row, by its first row; a row in none is one of its own.
    circle: Vec<u32>,
    /// How many references of rows of others each circle waits for.
    waits: Vec<u32>,
}

impl Waiting {
    /// Reads it, with the rows in the order in which they can go, those that are held last. `None` if no rows of these tables reference
    /// them.
    pub fn of(leaves: &[&Leaf], tables: &[pg_sys::Oid], rows: &PerLeaf) -> Result<Option<(Waiting, Vec<Linked>)>> {
        let keys: Vec<_> = keys(tables)?.into_iter().filter(|key| key.holds).collect();
        if !keys.iter().any(|key| leaves.iter().any(|leaf| leaf.table.oid == key.to)) {
            return Ok(None);
        }
        let is_backwards = rows.iter().any(|rows| rows.first() > rows.last());
        let oids: Vec<_> = leaves.iter().map(|leaf| leaf.table.oid).collect();
        // SET NULL of an earlier pass and other sessions have moved rows, and an older snapshot shows where they were.
        let mut graph = with_new_snapshot(|| {
            let mut rows: PerLeaf = leaves.iter().zip(rows).map(|(leaf, rows)| follow(leaf, rows)).collect();
            rows.iter_mut().for_each(|rows| rows.sort_unstable());
            let mut graph = Graph::of(rows);
            let of_leaf = |(place, leaf): (usize, &&Leaf)| {
                let mut keys = keys.iter().filter(|key| key.to == leaf.table.oid);
                keys.try_for_each(|key| graph.read(leaf, &oids, place, key))
            };
            leaves.iter().enumerate().try_for_each(of_leaf)?;
            Ok(graph)
        })?;
        if graph.holding.is_empty() && !graph.is_held.contains(&true) {
            return Ok(None);
        }
        let rows = graph.sort(is_backwards, usize::MAX).in_a_row();
        let (found, lengths) = graph.circles(|row| !graph.is_held[row]);
        let mut circle: Vec<u32> = (0..graph.is_held.len() as u32).collect();
        let mut found = &found[..];
        for length in lengths {
            let (rows, rest) = found.split_at(length);
            rows.iter().for_each(|row| circle[*row] = rows[0] as u32);
            found = rest;
        }
        let mut waits = vec![0; graph.is_held.len()];
        for (from, to) in &graph.holding {
            let (from, to) = (circle[*from as usize], circle[*to as usize]);
            waits[to as usize] += u32::from(from != to);
        }
        Ok(Some((Waiting { graph, circle, waits }, rows)))
    }

    /// Whether a row that stays references this one, directly or through others. `place` is its leaf's.
    pub fn is_held(&self, place: usize, row: &Removable) -> bool {
        self.number(place, row).is_some_and(|row| self.graph.is_held[row])
    }

    /// Whether no row that has not gone yet references this one, or its circle.
    pub fn is_ready(&self, place: usize, row: &Removable) -> bool {
        let is_free = |row: usize| self.waits[self.circle[row] as usize] == 0 && !self.graph.is_held[row];
        self.number(place, row).is_none_or(is_free)
    }

    /// Whether two rows are of one circle.
    pub fn are_together(&self, a: (usize, &Removable), b: (usize, &Removable)) -> bool {
        let circle = |(place, row)| self.number(place, row).map(|row| self.circle[row]);
        circle(a).is_some_and(|a| circle(b) == Some(a))
    }

    pub fn went(&mut self, place: usize, rows: &[Removable]) {
        for row in rows.iter().filter_map(|row| self.number(place, row)).collect::<Vec<_>>() {
            for to in self.graph.held_by(row).into_iter().filter(|to| self.circle[*to] != self.circle[row]) {
                let waits = &mut self.waits[self.circle[to] as usize];
                *waits = waits.saturating_sub(1);
            }
        }
    }

    /// Takes down which of the rows that were tried have stayed, which are given by their present positions.
    pub fn tried(&mut self, place: usize, leaf: &Leaf, rows: &[Removable], stayed: &[Removable]) {
        let stayed: HashSet<&Removable> = stayed.iter().collect();
        let now = follow(leaf, rows).into_iter().zip(rows.iter().copied());
        let (stay, gone): (Vec<_>, Vec<_>) = now.partition(|(now, _)| stayed.contains(now));
        self.stay(place, &stay.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
        self.went(place, &gone.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
    }

    fn stay(&mut self, place: usize, rows: &[Removable]) {
        self.graph.hold(rows.iter().filter_map(|row| self.number(place, row)).collect());
    }

    fn number(&self, place: usize, row: &Removable) -> Option<usize> {
        self.graph.number(place, row.tid())
    }
}

impl Ordered {
    /// All rows in their order, those that are held last.
    fn in_a_row(self) -> Vec<Linked> {
        let free = self.steps.into_iter().chain(self.circles).flat_map(one_by_one);
        free.chain(self.across.into_iter().flatten()).chain(self.held.into_iter().flat_map(one_by_one)).collect()
    }
}

/// The removable rows, numbered through all leaves, and which of them reference which.
struct Graph {
    rows: PerLeaf,
    /// The number of each leaf's first row.
    first: Vec<usize>,
    /// Rows that rows which stay reference, directly or through others.
    is_held: Vec<bool>,
    /// Referencing rows and the rows that these hold.
    holding: References,
    /// The same by keys that hold nothing: ON DELETE SET NULL or SET DEFAULT. The referencing row comes first, so that it need not be
    /// updated.
    others: References,
}

/// A referencing row and the row that it references.
type References = Vec<(u32, u32)>;

impl Graph {
    fn of(rows: PerLeaf) -> Graph {
        let mut all = 0;
        let mut first = Vec::new();
        for rows in &rows {
            first.push(all);
            all += rows.len();
        }
        Graph { rows, first, is_held: vec![false; all], holding: Vec::new(), others: Vec::new() }
    }

    /// The number of a row.
    fn number(&self, place: usize, tid: pg_sys::ItemPointerData) -> Option<usize> {
        let row = Removable::new(tid, 0);
        let at = |row: &Removable| (row.block(), row.offset());
        let found = self.rows[place].binary_search_by_key(&at(&row), at);
        found.ok().map(|index| self.first[place] + index)
    }

    /// Reads which rows reference those of a leaf by a key. `tables` are those whose rows these are.
    fn read(&mut self, leaf: &Leaf, tables: &[pg_sys::Oid], place: usize, key: &Key) -> Result<()> {
        let rows = self.rows[place].clone();
        let referencing = format!(
            "SELECT p.ctid, c.tableoid::bigint, c.ctid FROM ONLY {} p JOIN {} ON {}
             WHERE p.ctid OPERATOR(pg_catalog.=) ANY ((SELECT $1)::pg_catalog.tid[])",
            leaf.table.name, key.from, key.matches
        );
        for chunk in rows.chunks(CHUNK) {
            let tids: Vec<_> = chunk.iter().map(Removable::tid).collect();
            let read = || {
                stream_until(&referencing, Some(tid_array(&tids)), |row| {
                    // SAFETY: both columns are tids.
                    let (to, from) = unsafe { (row.tid(0), row.tid(2)) };
                    let table = row.number(1).unwrap_or_default();
                    let of = tables.iter().position(|of| i64::from(of.to_u32()) == table);
                    let from = of.and_then(|place| self.number(place, from));
                    match (self.number(place, to), from) {
                        (Some(to), Some(from)) if to != from => {
                            let references = if key.holds { &mut self.holding } else { &mut self.others };
                            references.push((from as u32, to as u32));
                        }
                        (Some(to), None) if key.holds => self.is_held[to] = true,
                        _ => {}
                    }
                    std::ops::ControlFlow::Continue(())
                })
            };
            reading_as_owner_of(&leaf.table, || naming_also(&key.named, read))?;
        }
        Ok(())
    }

    /// Of rows that wait for no others, the younger ones come first if so asked.
    fn sort(&mut self, are_younger_first: bool, size: usize) -> Ordered {
        self.holding.sort_unstable();
        self.others.sort_unstable();
        let all = self.is_held.len();
        self.hold((0..all).filter(|row| self.is_held[*row]).collect());
        let (mut steps, mut is_done) = (Vec::new(), vec![false; all]);
        self.take_ready(&[&self.holding, &self.others], are_younger_first, &mut steps, &mut is_done);
        if !self.others.is_empty() {
            self.take_ready(&[&self.holding], are_younger_first, &mut steps, &mut is_done);
        }
        let held_rows = |(place, rows): (usize, &Vec<Removable>)| {
            let numbered = rows.iter().zip(self.first[place]..);
            (place, numbered.filter(|(_, row)| self.is_held[*row] && !is_done[*row]).map(|(row, _)| *row).collect())
        };
        let held = self.rows.iter().enumerate().map(held_rows).collect();
        let is_left = |row: usize| !is_done[row] && !self.is_held[row];
        let (found, lengths) = if (0..all).any(is_left) { self.circles(is_left) } else { Default::default() };
        let rows: usize = steps.iter().map(|(_, rows)| rows.len()).sum();
        let are_short = self.rows.len() > 1 && steps.len() > self.rows.len() && rows < SHORT * steps.len();
        let (circles, mut across) = self.in_lists(&found, lengths, size, are_short);
        if are_short {
            let rows: Vec<Linked> = std::mem::take(&mut steps).into_iter().flat_map(one_by_one).collect();
            across.splice(..0, rows.chunks(size.max(1)).map(<[Linked]>::to_vec));
        }
        Ordered { steps, circles, across, held }
    }

    /// Takes the rows that wait for no others by these references, and those that then wait for none.
    fn take_ready(
        &self,
        references: &[&References],
        are_younger_first: bool,
        steps: &mut Vec<OfLeaf>,
        is_done: &mut [bool],
    ) {
        let all = is_done.len();
        let mut waits = vec![0u32; all];
        let is_waited_for = |(from, _): &&(u32, u32)| !self.is_held[*from as usize] && !is_done[*from as usize];
        references.iter().copied().flatten().filter(is_waited_for).for_each(|(_, to)| waits[*to as usize] += 1);
        let mut ready: Vec<VecDeque<usize>> = vec![VecDeque::new(); self.rows.len()];
        let in_turn = (0..all).map(|row| if are_younger_first { all - 1 - row } else { row });
        for row in in_turn.filter(|row| waits[*row] == 0 && !self.is_held[*row] && !is_done[*row]) {
            ready[self.place(row)].push_back(row);
        }
        while let Some(place) = ready.iter().position(|ready| !ready.is_empty()) {
            let mut step = Vec::new();
            while let Some(row) = ready[place].pop_front() {
                step.push(self.rows[place][row - self.first[place]]);
                is_done[row] = true;
                for to in references.iter().flat_map(|references| referenced_by(references, row)) {
                    waits[to] -= 1;
                    if waits[to] == 0 && !self.is_held[to] && !is_done[to] {
                        ready[self.place(to)].push_back(to);
                    }
                }
            }
            steps.push((place, step));
        }
    }

    /// The circles of the rows that are in, in an order in which they can go.
    fn circles(&self, is_in: impl Fn(usize) -> bool) -> (Vec<usize>, Vec<usize>) {
        circles(self.is_held.len(), is_in, |row| self.held_by(row))
    }

    /// Circles in lists that go in one statement: those of one leaf, and those of several, or all if so asked.
    fn in_lists(
        &self,
        mut found: &[usize],
        lengths: Vec<usize>,
        size: usize,
        are_all_across: bool,
    ) -> (Vec<OfLeaf>, Vec<Vec<Linked>>) {
        let (mut lists, mut across): (Vec<OfLeaf>, Vec<Vec<Linked>>) = Default::default();
        for length in lengths {
            let (circle, rest) = found.split_at(length);
            found = rest;
            let row = |row: &usize| (self.place(*row), self.rows[self.place(*row)][row - self.first[self.place(*row)]]);
            let place = self.place(circle[0]);
            if !are_all_across && circle.iter().all(|row| self.place(*row) == place) {
                let rows = circle.iter().map(|of| row(of).1);
                match lists.last_mut() {
                    Some((of, list)) if *of == place && list.len() + length <= size => list.extend(rows),
                    _ => lists.push((place, rows.collect())),
                }
            } else {
                let linked = circle.iter().enumerate().map(|(turn, of)| {
                    let (place, row) = row(of);
                    Linked { place, row, is_first: turn == 0 }
                });
                match across.last_mut() {
                    Some(list) if list.len() + length <= size => list.extend(linked),
                    _ => across.push(linked.collect()),
                }
            }
        }
        (lists, across)
    }

    /// Marks what these rows reference as held, directly or through others.
    fn hold(&mut self, mut held: Vec<usize>) {
        while let Some(row) = held.pop() {
            for to in self.held_by(row) {
                if !std::mem::replace(&mut self.is_held[to], true) {
                    held.push(to);
                }
            }
        }
    }

    /// The rows that a row holds.
    fn held_by(&self, row: usize) -> Vec<usize> {
        referenced_by(&self.holding, row).collect()
    }

    /// The leaf of a row.
    fn place(&self, row: usize) -> usize {
        self.first.partition_point(|first| *first <= row) - 1
    }
}

fn one_by_one((place, rows): OfLeaf) -> impl Iterator<Item = Linked> {
    rows.into_iter().map(move |row| Linked { place, row, is_first: true })
}

/// The rows that a row references.
fn referenced_by(references: &References, row: usize) -> impl Iterator<Item = usize> {
    let start = references.partition_point(|(from, _)| (*from as usize) < row);
    let these = references[start..].iter().take_while(move |(from, _)| *from as usize == row);
    these.map(|(_, to)| *to as usize)
}
