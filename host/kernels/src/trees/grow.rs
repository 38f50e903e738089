//! One tree, grown leaf by leaf: the leaf whose best split gains most is split next.

use std::cmp::Ordering;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering as Memory};

use super::bins::{Binned, Cuts, Group};
use super::error::ForestError;
use super::plan::ForestPlan;
use super::split::{Search, Side, Split};
use super::workers::{Workers, lock};
use crate::cpu::level::Level;
use crate::cpu::trees::{self, BINS, Bounds, Histogram, Sums, Units};

/// Rows of a piece of work that threads share.
const PIECE_ROWS: usize = 16_384;

/// What a node became.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Grown {
    /// A leaf, and what it adds.
    Leaf { value: f64 },
    /// Its left child; the right one follows.
    Split {
        column: usize,
        side: Side,
        gain: f64,
        left: usize,
    },
}

/// A node that is a leaf so far.
#[derive(Debug)]
struct Leaf {
    node: usize,
    /// Its rows, in the order of the grower.
    start: usize,
    end: usize,
    depth: u32,
    total: Sums,
    histograms: Option<Vec<Histogram>>,
    best: Option<Split>,
}

/// Grows trees over the same rows, with the memory of the tree before.
pub(super) struct Grower<'a> {
    pub(super) cuts: &'a Cuts,
    pub(super) binned: &'a Binned,
    pub(super) plan: &'a ForestPlan,
    pub(super) workers: &'a Workers,
    /// Rows that the tree is grown on, and in the end those of each leaf together.
    pub(super) rows: Vec<u32>,
    /// Gradients and hessians of all rows.
    pub(super) pairs: Vec<[i32; 2]>,
    /// Columns that the tree may use.
    pub(super) usable: Vec<bool>,
    ordered: Vec<[i32; 2]>,
    left: Vec<u32>,
    right: Vec<u32>,
    pool: Vec<Vec<Histogram>>,
    shards: Vec<Mutex<Vec<Histogram>>>,
    leaves: Vec<Leaf>,
}

impl<'a> Grower<'a> {
    pub(super) fn new(
        cuts: &'a Cuts,
        binned: &'a Binned,
        plan: &'a ForestPlan,
        workers: &'a Workers,
    ) -> Self {
        let rows = binned.rows;
        Self {
            cuts,
            binned,
            plan,
            workers,
            rows: Vec::with_capacity(rows),
            pairs: vec![[0; 2]; rows],
            usable: vec![true; cuts.columns.len()],
            ordered: vec![[0; 2]; rows],
            left: vec![0; rows],
            right: vec![0; rows],
            pool: Vec::new(),
            shards: Vec::new(),
            leaves: Vec::new(),
        }
    }

    /// Grows a tree on the rows that were set. `watch` is asked before every split.
    pub(super) fn grow(
        &mut self,
        units: Units,
        watch: &mut dyn FnMut() -> Result<(), ForestError>,
    ) -> Result<Vec<Grown>, ForestError> {
        for leaf in self.leaves.drain(..) {
            self.pool.extend(leaf.histograms);
        }
        let mut nodes = vec![Grown::Leaf { value: 0.0 }];
        let root = self.root(units);
        self.leaves.push(root);
        while self.leaves.len() < self.plan.max_leaves as usize {
            watch()?;
            let Some(index) = self.next_leaf() else { break };
            self.split(index, units, &mut nodes);
        }
        for leaf in &self.leaves {
            nodes[leaf.node] = Grown::Leaf {
                value: self.value(leaf.total, units),
            };
        }
        Ok(nodes)
    }

    /// Writes the number of its leaf for each row that the tree was grown on, and gives the
    /// leaves' values by number.
    pub(super) fn leaves(&self, nodes: &[Grown], leaf_of: &[AtomicU16]) -> Vec<f64> {
        let pieces: Vec<(u16, &[u32])> = (0..)
            .zip(&self.leaves)
            .flat_map(|(number, leaf)| {
                self.rows[leaf.start..leaf.end]
                    .chunks(PIECE_ROWS)
                    .map(move |rows| (number, rows))
            })
            .collect();
        self.workers.run(pieces.len(), &|piece| {
            let (number, rows) = pieces[piece];
            for row in rows {
                leaf_of[*row as usize].store(number, Memory::Relaxed);
            }
        });
        self.leaves
            .iter()
            .map(|leaf| match &nodes[leaf.node] {
                Grown::Leaf { value } => *value,
                Grown::Split { .. } => 0.0,
            })
            .collect()
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            min_rows: i64::from(self.plan.min_rows),
            min_hessian: f64::from(self.plan.min_hessian),
            l1: f64::from(self.plan.l1),
            l2: f64::from(self.plan.l2),
        }
    }

    /// The step of Newton's method with L1 and L2 terms (Chen and Guestrin 2016, equation 5),
    /// times the learning rate.
    fn value(&self, total: Sums, units: Units) -> f64 {
        let bounds = self.bounds();
        let gradient = units.gradient(total);
        let rest = (gradient.abs() - bounds.l1).max(0.0).copysign(gradient);
        let below = units.hessian(total) + bounds.l2;
        if below > 0.0 {
            -rest / below * f64::from(self.plan.learning_rate)
        } else {
            0.0
        }
    }

    /// The leaf whose split gains most; of equal ones the first.
    fn next_leaf(&self) -> Option<usize> {
        let gain = |leaf: &Leaf| leaf.best.as_ref().map(|split| split.gain);
        let mut best: Option<(usize, f64)> = None;
        for (index, leaf) in self.leaves.iter().enumerate() {
            if let Some(gain) = gain(leaf)
                && best.is_none_or(|(_, most)| gain > most)
            {
                best = Some((index, gain));
            }
        }
        best.map(|(index, _)| index)
    }

    /// Whether a node is large enough to be split at all.
    fn may_split(&self, rows: usize, depth: u32) -> bool {
        self.plan.max_depth.is_none_or(|most| depth < most)
            && rows >= (self.plan.min_rows as usize).saturating_mul(2)
    }

    fn root(&mut self, units: Units) -> Leaf {
        let count = self.rows.len();
        let mut total = [0_i64; 2];
        let one = 1_i64 << units.hessian_bits;
        for row in &self.rows {
            let [gradient, hessian] = self.pairs[*row as usize];
            total[0] += i64::from(gradient);
            total[1] += i64::from(hessian) + one;
        }
        let mut leaf = Leaf {
            node: 0,
            start: 0,
            end: count,
            depth: 0,
            total,
            histograms: None,
            best: None,
        };
        if self.may_split(count, 0) {
            let mut histograms = self.take_histograms();
            leaf.best = self
                .measure(&mut histograms, (0, count), total, None, units)
                .0;
            leaf.histograms = Some(histograms);
        }
        leaf
    }

    fn take_histograms(&mut self) -> Vec<Histogram> {
        let columns = self.cuts.columns.len();
        self.pool
            .pop()
            .unwrap_or_else(|| vec![[[0; 2]; BINS]; columns])
    }

    /// Splits a leaf by its best split: the left child takes its place, the right one is added.
    fn split(&mut self, index: usize, units: Units, nodes: &mut Vec<Grown>) {
        let parent = &mut self.leaves[index];
        let Some(split) = parent.best.take() else {
            return;
        };
        let mut histograms = parent.histograms.take();
        let (start, end, depth, total) = (parent.start, parent.end, parent.depth + 1, parent.total);
        let node = parent.node;
        let middle = start + self.partition(start, end, &split);
        let left_node = nodes.len();
        nodes[node] = Grown::Split {
            column: split.column,
            side: split.side,
            gain: split.gain,
            left: left_node,
        };
        nodes.extend([Grown::Leaf { value: 0.0 }, Grown::Leaf { value: 0.0 }]);
        let mut left = Leaf {
            node: left_node,
            start,
            end: middle,
            depth,
            total: split.left,
            histograms: None,
            best: None,
        };
        let mut right = Leaf {
            node: left_node + 1,
            start: middle,
            end,
            depth,
            total: [
                total[0].wrapping_sub(split.left[0]),
                total[1].wrapping_sub(split.left[1]),
            ],
            histograms: None,
            best: None,
        };
        let more = self.leaves.len() + 1 < self.plan.max_leaves as usize;
        let may = |leaf: &Leaf| more && self.may_split(leaf.end - leaf.start, leaf.depth);
        let (left_may, right_may) = (may(&left), may(&right));
        if (left_may || right_may)
            && let Some(mut parents) = histograms.take()
        {
            let (small, large) = if middle - start <= end - middle {
                (&mut left, &mut right)
            } else {
                (&mut right, &mut left)
            };
            let mut own = self.take_histograms();
            let range = (small.start, small.end);
            let other = Some((&mut parents, large.total));
            let found = self.measure(&mut own, range, small.total, other, units);
            let small_may = if small.start == start {
                left_may
            } else {
                right_may
            };
            let large_may = if large.start == start {
                left_may
            } else {
                right_may
            };
            small.best = found.0.filter(|_| small_may);
            large.best = found.1.filter(|_| large_may);
            for (leaf, histograms) in [(small, own), (large, parents)] {
                match leaf.best {
                    Some(_) => leaf.histograms = Some(histograms),
                    None => self.pool.push(histograms),
                }
            }
        }
        self.pool.extend(histograms);
        self.leaves[index] = left;
        self.leaves.push(right);
    }

    /// Puts the rows that go left before those that go right. How many go left.
    fn partition(&mut self, start: usize, end: usize, split: &Split) -> usize {
        let place = self.cuts.place(split.column);
        let bins = &self.binned.groups[place.group];
        let ways = split.side.ways();
        let rows = &mut self.rows[start..end];
        let (left, right) = (&mut self.left[..rows.len()], &mut self.right[..rows.len()]);
        if rows.len() < 2 * PIECE_ROWS || self.workers.count() == 1 {
            let count = trees::partition(bins, place.lane, &ways, rows, left, right);
            let (to_left, to_right) = rows.split_at_mut(count);
            to_left.copy_from_slice(&left[..count]);
            to_right.copy_from_slice(&right[..to_right.len()]);
            return count;
        }
        let pieces: Vec<_> = rows
            .chunks(PIECE_ROWS)
            .zip(left.chunks_mut(PIECE_ROWS))
            .zip(right.chunks_mut(PIECE_ROWS))
            .map(|((rows, left), right)| Mutex::new((rows, left, right, 0)))
            .collect();
        self.workers.run(pieces.len(), &|piece| {
            let (rows, left, right, count) = &mut *lock(&pieces[piece]);
            *count = trees::partition(bins, place.lane, &ways, rows, left, right);
        });
        let sizes: Vec<(usize, usize)> = pieces
            .iter()
            .map(|piece| {
                let piece = lock(piece);
                (piece.3, piece.0.len() - piece.3)
            })
            .collect();
        drop(pieces);
        let all_left = sizes.iter().map(|(left, _)| left).sum();
        let (mut to_left, mut to_right) = rows.split_at_mut(all_left);
        let mut copies = Vec::with_capacity(2 * sizes.len());
        let sources = left.chunks(PIECE_ROWS).zip(right.chunks(PIECE_ROWS));
        for ((left, right), (left_count, right_count)) in sources.zip(sizes) {
            let (target, rest) = to_left.split_at_mut(left_count);
            to_left = rest;
            copies.push(Mutex::new((target, &left[..left_count])));
            let (target, rest) = to_right.split_at_mut(right_count);
            to_right = rest;
            copies.push(Mutex::new((target, &right[..right_count])));
        }
        self.workers.run(copies.len(), &|copy| {
            let (target, source) = &mut *lock(&copies[copy]);
            target.copy_from_slice(source);
        });
        all_left
    }

    /// Fills the histograms of a node from its rows, takes them from those of its parent, which
    /// become the other child's, and finds the best split of both.
    fn measure(
        &mut self,
        own: &mut [Histogram],
        (start, end): (usize, usize),
        total: Sums,
        other: Option<(&mut Vec<Histogram>, Sums)>,
        units: Units,
    ) -> (Option<Split>, Option<Split>) {
        let rows = &self.rows[start..end];
        let all = rows.len() == self.binned.rows;
        let pairs: &[[i32; 2]] = if all {
            &self.pairs
        } else {
            gather(&self.pairs, rows, &mut self.ordered, self.workers);
            &self.ordered[..rows.len()]
        };
        let rows = (!all).then_some(rows);
        let groups = &self.cuts.groups;
        let threads = self.workers.count();
        let shards = if groups.len() >= threads {
            1
        } else {
            threads
                .div_ceil(groups.len())
                .min(pairs.len() / PIECE_ROWS)
                .max(1)
        };
        let one = 1_i64 << units.hessian_bits;
        if shards > 1 {
            let wanted = groups.len() * (shards - 1);
            while self.shards.len() < wanted {
                self.shards
                    .push(Mutex::new(vec![[[0; 2]; BINS]; trees::LANES]));
            }
        }
        let other_total = other.as_ref().map(|(_, total)| *total);
        let mut others = other.map(|(histograms, _)| histograms.as_mut_slice());
        let mut own = own;
        let mut tasks = Vec::with_capacity(groups.len());
        for group in groups {
            let (mine, rest) = own.split_at_mut(group.columns);
            own = rest;
            let theirs = others.take().map(|all| {
                let (theirs, rest) = all.split_at_mut(group.columns);
                others = Some(rest);
                theirs
            });
            tasks.push(Mutex::new(Task {
                group: *group,
                own: mine,
                other: theirs,
                found: (None, None),
            }));
        }
        let (cuts, binned, usable) = (self.cuts, self.binned, &self.usable);
        let level = Level::best();
        let shard_rows = pairs.len().div_ceil(shards);
        let fill = |group: usize, shard: usize, histograms: &mut [Histogram]| {
            let range = shard * shard_rows..((shard + 1) * shard_rows).min(pairs.len());
            let columns = cuts.groups[group].first..;
            for (histogram, cut) in histograms.iter_mut().zip(&cuts.columns[columns]) {
                histogram[..cut.bins()].fill([0; 2]);
            }
            let bins = &binned.groups[group];
            let (bins, rows) = match rows {
                Some(rows) => (&bins[..], Some(&rows[range.clone()])),
                None => (&bins[range.clone()], None),
            };
            trees::accumulate(level, bins, rows, &pairs[range], one, histograms);
        };
        let search = |total: Sums| Search {
            level,
            total,
            units,
            bounds: self.bounds(),
            min_gain: f64::from(self.plan.min_gain),
            categories: &self.plan.categories,
        };
        let finish = |task: &mut Task<'_>| {
            let best = |histograms: &[Histogram], total: Sums| {
                let search = search(total);
                let first = task.group.first;
                (first..)
                    .zip(histograms)
                    .filter(|(column, _)| usable[*column])
                    .filter_map(|(column, histogram)| {
                        search.best(column, &cuts.columns[column], histogram)
                    })
                    .reduce(better)
            };
            if let Some(parents) = &mut task.other {
                let columns = task.group.first..;
                for ((parent, own), cut) in parents
                    .iter_mut()
                    .zip(&*task.own)
                    .zip(&cuts.columns[columns])
                {
                    let used = cut.bins();
                    trees::subtract(&mut parent[..used], &own[..used]);
                }
            }
            let found = best(task.own, total);
            let other = task.other.as_deref().zip(other_total);
            let other = other.and_then(|(histograms, total)| best(histograms, total));
            task.found = (found, other);
        };
        if shards == 1 {
            self.workers.run(tasks.len(), &|group| {
                let task = &mut *lock(&tasks[group]);
                fill(group, 0, task.own);
                finish(task);
            });
        } else {
            let extra = &self.shards;
            self.workers.run(groups.len() * shards, &|number| {
                let (group, shard) = (number / shards, number % shards);
                if shard == 0 {
                    fill(group, 0, lock(&tasks[group]).own);
                } else {
                    let place = group * (shards - 1) + shard - 1;
                    let columns = cuts.groups[group].columns;
                    fill(group, shard, &mut lock(&extra[place])[..columns]);
                }
            });
            self.workers.run(tasks.len(), &|group| {
                let task = &mut *lock(&tasks[group]);
                for shard in &extra[group * (shards - 1)..][..shards - 1] {
                    let shard = lock(shard);
                    for (own, part) in task.own.iter_mut().zip(&*shard) {
                        add(own, part);
                    }
                }
                finish(task);
            });
        }
        tasks
            .into_iter()
            .map(|task| lock_into(task).found)
            .reduce(|before, next| (merge(before.0, next.0), merge(before.1, next.1)))
            .unwrap_or_default()
    }
}

/// The work of one group of columns.
struct Task<'a> {
    group: Group,
    own: &'a mut [Histogram],
    other: Option<&'a mut [Histogram]>,
    found: (Option<Split>, Option<Split>),
}

fn lock_into<T>(slot: Mutex<T>) -> T {
    slot.into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn add(to: &mut Histogram, part: &Histogram) {
    for (to, part) in to.iter_mut().zip(part) {
        *to = [to[0].wrapping_add(part[0]), to[1].wrapping_add(part[1])];
    }
}

/// Of two splits the one that gains more; of equal ones the first.
fn better(before: Split, next: Split) -> Split {
    match next.gain.total_cmp(&before.gain) {
        Ordering::Greater => next,
        _ => before,
    }
}

fn merge(before: Option<Split>, next: Option<Split>) -> Option<Split> {
    match (before, next) {
        (Some(before), Some(next)) => Some(better(before, next)),
        (before, next) => before.or(next),
    }
}

/// The gradients and hessians of some rows, in their order.
fn gather(pairs: &[[i32; 2]], rows: &[u32], ordered: &mut [[i32; 2]], workers: &Workers) {
    let ordered = &mut ordered[..rows.len()];
    let copy = |rows: &[u32], ordered: &mut [[i32; 2]]| {
        for (to, row) in ordered.iter_mut().zip(rows) {
            *to = pairs[*row as usize];
        }
    };
    if rows.len() < 2 * PIECE_ROWS {
        return copy(rows, ordered);
    }
    let pieces: Vec<_> = rows
        .chunks(PIECE_ROWS)
        .zip(ordered.chunks_mut(PIECE_ROWS))
        .map(Mutex::new)
        .collect();
    workers.run(pieces.len(), &|piece| {
        let (rows, ordered) = &mut *lock(&pieces[piece]);
        copy(rows, ordered);
    });
}
