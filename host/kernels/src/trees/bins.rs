//! Columns cut into at most 255 bins each, and one, number 0, for what is missing or unknown.

use std::sync::Mutex;

use super::error::ForestError;
use super::plan::{ForestCaps, ForestPlan};
use super::table::Table;
use super::workers::{Workers, lock};
use crate::cpu::trees::{BINS, LANES, Packed};
use crate::random::{Purpose, Stream};

/// Rows that quantiles are taken from, at most.
const SAMPLE_ROWS: usize = 200_000;

/// Rows that are put into bins at a time.
const PIECE_ROWS: usize = 8192;

/// How a column is cut.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cut {
    /// A number is in bin i + 1 if it is above i of these, which rise; the last is infinite.
    Numbers(Vec<f32>),
    /// The bin of each category number; one past the end is in bin 0.
    Categories { bins: Vec<u8>, count: usize },
}

impl Cut {
    /// Bins in use, number 0 among them.
    pub(super) fn bins(&self) -> usize {
        match self {
            Cut::Numbers(bounds) => bounds.len() + 1,
            Cut::Categories { count, .. } => count + 1,
        }
    }
}

/// Columns whose bins lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Its first column.
    pub(super) first: usize,
    /// How many; at most [`LANES`].
    pub(super) columns: usize,
}

/// How all columns are cut, numbers first.
#[derive(Clone, Debug)]
pub(super) struct Cuts {
    pub(super) columns: Vec<Cut>,
    pub(super) number_columns: usize,
    pub(super) groups: Vec<Group>,
}

/// Where a column is: its group, and its lane in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: usize,
    pub(super) lane: usize,
}

impl Cuts {
    /// Cuts the columns of a table by quantiles and frequencies of its rows.
    pub(super) fn of(
        table: &Table<'_>,
        plan: &ForestPlan,
        seed: u64,
        caps: &ForestCaps,
        workers: &Workers,
    ) -> Result<Cuts, ForestError> {
        let rows = sample(table.rows, seed);
        let made: Vec<Mutex<Option<Result<Cut, ForestError>>>> =
            (0..table.columns()).map(|_| Mutex::new(None)).collect();
        workers.run(made.len(), &|column| {
            let cut = if column < table.number_columns {
                Ok(cut_numbers(table, column, &rows, plan))
            } else {
                cut_categories(table, column - table.number_columns, plan, caps)
            };
            *lock(&made[column]) = Some(cut);
        });
        let columns = made
            .into_iter()
            .filter_map(|cut| cut.into_inner().unwrap_or_default())
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Cuts {
            groups: groups(columns.len()),
            columns,
            number_columns: table.number_columns,
        })
    }

    /// Where a column is.
    pub(super) fn place(&self, column: usize) -> Place {
        let group = self
            .groups
            .partition_point(|group| group.first + group.columns <= column);
        Place {
            group,
            lane: column - self.groups.get(group).map_or(0, |group| group.first),
        }
    }

    /// The bins of the rows of a table.
    pub(super) fn bin(&self, table: &Table<'_>, workers: &Workers) -> Binned {
        let rows = table.rows;
        let padded: Vec<[f32; BINS]> = self.columns[..self.number_columns]
            .iter()
            .map(|cut| {
                let mut padded = [f32::INFINITY; BINS];
                if let Cut::Numbers(bounds) = cut {
                    padded[..bounds.len()].copy_from_slice(bounds);
                }
                padded
            })
            .collect();
        let mut groups = vec![vec![[0; LANES]; rows]; self.groups.len()];
        let pieces: Vec<_> = groups
            .iter_mut()
            .zip(&self.groups)
            .flat_map(|(bins, group)| {
                bins.chunks_mut(PIECE_ROWS)
                    .enumerate()
                    .map(move |(piece, bins)| Mutex::new((group, piece * PIECE_ROWS, bins)))
            })
            .collect();
        workers.run(pieces.len(), &|piece| {
            let (group, start, bins) = &mut *lock(&pieces[piece]);
            for lane in 0..group.columns {
                let column = group.first + lane;
                if let Some(bounds) = padded.get(column) {
                    let numbers = table.numbers[*start * table.number_columns..]
                        .iter()
                        .skip(column)
                        .step_by(table.number_columns);
                    for (packed, number) in bins.iter_mut().zip(numbers) {
                        packed[lane] = bin_of(bounds, *number);
                    }
                } else if let Cut::Categories { bins: map, .. } = &self.columns[column] {
                    let categories = table.categories[*start * table.category_columns..]
                        .iter()
                        .skip(column - self.number_columns)
                        .step_by(table.category_columns);
                    for (packed, category) in bins.iter_mut().zip(categories) {
                        packed[lane] = category_bin(map, *category);
                    }
                }
            }
        });
        drop(pieces);
        Binned { rows, groups }
    }
}

/// The bins of rows, in groups of columns.
#[derive(Debug)]
pub(super) struct Binned {
    pub(super) rows: usize,
    pub(super) groups: Vec<Vec<Packed>>,
}

/// The bin of a category number.
#[inline]
pub(super) fn category_bin(map: &[u8], category: i32) -> u8 {
    usize::try_from(category)
        .ok()
        .and_then(|category| map.get(category))
        .copied()
        .unwrap_or(0)
}

/// The bin of a number: how many bounds are below it, plus 1.
#[inline(always)]
fn bin_of(bounds: &[f32; BINS], number: f32) -> u8 {
    let mut below = 0;
    let mut step = BINS / 2;
    while step > 0 {
        // At most 255 in all, since the last bound is not below anything.
        below += step * usize::from(bounds[(below + step - 1) % BINS] < number);
        step /= 2;
    }
    if number.is_nan() { 0 } else { below as u8 + 1 }
}

/// As many columns a group as evenly as can be.
fn groups(columns: usize) -> Vec<Group> {
    let count = columns.div_ceil(LANES);
    (0..count)
        .map(|group| {
            let first = group * columns / count;
            Group {
                first,
                columns: (group + 1) * columns / count - first,
            }
        })
        .collect()
}

/// Rows that stand for all: one of each piece of equal length.
fn sample(rows: usize, seed: u64) -> Vec<usize> {
    if rows <= SAMPLE_ROWS {
        return (0..rows).collect();
    }
    let numbers = Stream::new(seed, Purpose::Bins, 0, 0).numbers();
    let edge = |piece: usize| (piece as u128 * rows as u128 / SAMPLE_ROWS as u128) as usize;
    (0..SAMPLE_ROWS)
        .zip(numbers)
        .map(|(piece, number)| {
            let (first, end) = (edge(piece), edge(piece + 1));
            first + ((u64::from(number) * (end - first) as u64) >> 32) as usize
        })
        .collect()
}

fn cut_numbers(table: &Table<'_>, column: usize, rows: &[usize], plan: &ForestPlan) -> Cut {
    let mut values: Vec<f32> = rows
        .iter()
        .map(|row| table.numbers[row * table.number_columns + column])
        .filter(|number| !number.is_nan())
        // One zero.
        .map(|number| number + 0.0)
        .collect();
    values.sort_unstable_by(f32::total_cmp);
    let mut distinct: Vec<(f32, usize)> = Vec::new();
    for value in values {
        match distinct.last_mut() {
            Some((last, count)) if *last == value => *count += 1,
            _ => distinct.push((value, 1)),
        }
    }
    Cut::Numbers(bounds(
        &distinct,
        plan.max_bins as usize,
        plan.min_rows_in_bin as usize,
    ))
}

/// Cuts different values, with how often each is there, into bins of about as many rows. A value
/// that alone has as many rows as a bin should is not put together with others before it.
fn bounds(distinct: &[(f32, usize)], most: usize, min_rows: usize) -> Vec<f32> {
    let mut left: usize = distinct.iter().map(|(_, count)| count).sum();
    let mut bounds = Vec::new();
    let mut rows = 0;
    let mut bins_left = most;
    let every = distinct.len() <= most;
    let mut pairs = distinct.windows(2);
    while let Some([(value, count), (next, next_count)]) = pairs.next() {
        rows += count;
        // Written without division: rows is at least what each bin left should have.
        let full = every || rows.saturating_mul(bins_left) >= left;
        let next_is_large = next_count.saturating_mul(bins_left) >= left;
        if (full || next_is_large) && rows >= min_rows && bins_left > 1 {
            bounds.push(between(*value, *next));
            left -= rows;
            rows = 0;
            bins_left -= 1;
        }
    }
    bounds.push(f32::INFINITY);
    bounds
}

/// A number from `low` on and below `high`, in the middle if there is one.
fn between(low: f32, high: f32) -> f32 {
    let middle = ((f64::from(low) + f64::from(high)) / 2.0) as f32;
    if middle >= low && middle < high {
        middle
    } else {
        low
    }
}

fn cut_categories(
    table: &Table<'_>,
    column: usize,
    plan: &ForestPlan,
    caps: &ForestCaps,
) -> Result<Cut, ForestError> {
    let numbers = || {
        table
            .categories
            .iter()
            .skip(column)
            .step_by(table.category_columns.max(1))
    };
    let highest = numbers().copied().max().unwrap_or(0).max(0);
    if i64::from(highest) > caps.category_numbers.min(1 << 30) as i64 {
        return Err(ForestError::TooLarge {
            what: "categories of a column",
            given: highest as u64,
            most: caps.category_numbers,
            remedy: "keep the most frequent ones",
        });
    }
    let mut counts = vec![0_u32; highest as usize + 1];
    for number in numbers() {
        if let Some(count) = usize::try_from(*number)
            .ok()
            .and_then(|number| counts.get_mut(number))
        {
            *count += 1;
        }
    }
    let mut frequent: Vec<usize> = (1..counts.len())
        .filter(|number| counts[*number] > 0)
        .collect();
    frequent.sort_by_key(|number| (std::cmp::Reverse(counts[*number]), *number));
    frequent.truncate(plan.max_bins as usize);
    let mut bins = vec![0_u8; counts.len()];
    for (bin, number) in (1..).zip(&frequent) {
        bins[*number] = bin;
    }
    Ok(Cut::Categories {
        bins,
        count: frequent.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(values: &[f32]) -> Vec<(f32, usize)> {
        let mut distinct: Vec<(f32, usize)> = Vec::new();
        for value in values {
            match distinct.last_mut() {
                Some((last, count)) if last == value => *count += 1,
                _ => distinct.push((*value, 1)),
            }
        }
        distinct
    }

    #[test]
    fn few_values_get_a_bin_each_and_bounds_lie_between_them() {
        let distinct = counted(&[-1.0, 2.0, 2.0, f32::INFINITY]);
        assert_eq!(bounds(&distinct, 255, 1), [0.5, 2.0, f32::INFINITY]);
        let distinct = counted(&[f32::NEG_INFINITY, 0.0]);
        assert_eq!(
            bounds(&distinct, 255, 1),
            [f32::NEG_INFINITY, f32::INFINITY]
        );
        let next = f32::from_bits(1.0_f32.to_bits() + 1);
        assert_eq!(bounds(&counted(&[1.0, next]), 255, 1), [1.0, f32::INFINITY]);
        assert_eq!(bounds(&counted(&[3.0]), 255, 1), [f32::INFINITY]);
        assert_eq!(bounds(&[], 255, 1), [f32::INFINITY]);
    }

    #[test]
    fn many_values_are_cut_into_bins_of_about_as_many_rows() {
        let values: Vec<f32> = (0..1000).map(|value| value as f32).collect();
        let cut = bounds(&counted(&values), 10, 3);
        assert_eq!(cut.len(), 10);
        for (bin, bound) in cut[..9].iter().enumerate() {
            assert!((bound - (bin as f32 + 1.0) * 100.0).abs() < 3.0, "{cut:?}");
        }
        // A value that fills bins alone has one of its own, and the others share the rest.
        let mut values = vec![500.0; 9000];
        values.extend((0..500).map(|value| value as f32));
        values.extend((501..1001).map(|value| value as f32));
        values.sort_by(f32::total_cmp);
        let cut = bounds(&counted(&values), 20, 3);
        assert!(cut.contains(&499.5) && cut.contains(&500.5), "{cut:?}");
        assert!(cut.len() > 15, "{cut:?}");
    }

    #[test]
    fn a_bin_has_its_rows() {
        let values: Vec<f32> = (0..9).map(|value| value as f32).collect();
        assert_eq!(bounds(&counted(&values), 255, 3), [2.5, 5.5, f32::INFINITY]);
    }

    #[test]
    fn every_number_has_the_bin_that_its_bounds_say() {
        let mut padded = [f32::INFINITY; BINS];
        let cut = [-1.0, 0.0, 0.5, f32::INFINITY];
        padded[..4].copy_from_slice(&cut);
        for (number, bin) in [
            (f32::NAN, 0),
            (f32::NEG_INFINITY, 1),
            (-1.0, 1),
            (-0.5, 2),
            (-0.0, 2),
            (0.0, 2),
            (0.4, 3),
            (0.6, 4),
            (f32::INFINITY, 4),
        ] {
            assert_eq!(bin_of(&padded, number), bin, "{number}");
        }
        let mut full = [f32::INFINITY; BINS];
        for (place, bound) in full[..254].iter_mut().enumerate() {
            *bound = place as f32;
        }
        for place in 0..254_u8 {
            assert_eq!(bin_of(&full, f32::from(place)), place + 1);
        }
        assert_eq!(bin_of(&full, 1e9), 255);
    }

    #[test]
    fn columns_are_spread_over_groups() {
        assert_eq!(groups(0), []);
        let sizes = |columns| {
            groups(columns)
                .iter()
                .map(|group| group.columns)
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(8), [8]);
        assert_eq!(sizes(9), [4, 5]);
        assert_eq!(sizes(30), [7, 8, 7, 8]);
    }

    #[test]
    fn a_sample_has_rows_of_every_part_once() {
        let rows = 450_001;
        let sample = sample(rows, 7);
        assert_eq!(sample.len(), SAMPLE_ROWS);
        assert!(sample.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(*sample.last().expect("rows") < rows);
        assert_ne!(sample, super::sample(rows, 8));
    }
}
