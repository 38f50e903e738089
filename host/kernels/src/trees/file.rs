//! Forests as bytes: arrays in the safetensors format, with what is not an array as JSON in its
//! metadata.

use std::collections::HashMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::error::ForestError;
use super::forest::Forest;
use super::plan::{ForestCaps, Objective};
use crate::cpu::walk::{MAX_NODES, Node, Trees};

/// The key of the description in the metadata.
const KEY: &str = "sandcast.forest";

/// The version of the layout.
const VERSION: u32 = 1;

/// What is not an array.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u32,
    objective: Loss,
    number_columns: u32,
}

/// The objective as it is written.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Loss {
    Logistic,
    Softmax { classes: u32 },
    SquaredError,
    Huber { delta: f32 },
}

impl Forest {
    /// The forest as bytes: the same forest, the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let description = Description {
            version: VERSION,
            objective: match self.objective {
                Objective::Logistic => Loss::Logistic,
                Objective::Softmax { classes } => Loss::Softmax { classes },
                Objective::SquaredError => Loss::SquaredError,
                Objective::Huber { delta } => Loss::Huber { delta },
            },
            number_columns: self.number_columns as u32,
        };
        let (nodes, roots) = (self.trees.nodes(), self.trees.roots());
        let masks: Vec<u64> = self.trees.masks().iter().flatten().copied().collect();
        let lengths: Vec<u32> = self
            .category_bins
            .iter()
            .map(|bins| bins.len() as u32)
            .collect();
        let arrays: [(&str, Dtype, usize, Vec<u8>); 9] = [
            (
                "base",
                Dtype::F64,
                self.base.len(),
                bytes(&self.base, |base| base.to_le_bytes()),
            ),
            (
                "tree.root",
                Dtype::U32,
                roots.len(),
                bytes(roots, |root| root.to_le_bytes()),
            ),
            (
                "node.step",
                Dtype::U32,
                nodes.len(),
                bytes(nodes, |node| node.step.to_le_bytes()),
            ),
            (
                "node.threshold",
                Dtype::F32,
                nodes.len(),
                bytes(nodes, |node| node.threshold.to_le_bytes()),
            ),
            (
                "node.value",
                Dtype::F32,
                nodes.len(),
                bytes(self.trees.values(), |value| value.to_le_bytes()),
            ),
            (
                "node.gain",
                Dtype::F32,
                nodes.len(),
                bytes(&self.gains, |gain| gain.to_le_bytes()),
            ),
            (
                "mask",
                Dtype::U64,
                masks.len(),
                bytes(&masks, |word| word.to_le_bytes()),
            ),
            (
                "category.length",
                Dtype::U32,
                lengths.len(),
                bytes(&lengths, |length| length.to_le_bytes()),
            ),
            (
                "category.bin",
                Dtype::U8,
                self.category_bins.iter().map(Vec::len).sum(),
                self.category_bins.concat(),
            ),
        ];
        let views = arrays.iter().filter_map(|(name, dtype, length, bytes)| {
            let view = TensorView::new(*dtype, vec![*length], bytes).ok()?;
            Some((*name, view))
        });
        // Plain data whose numbers are finite always has a JSON form, and the sizes agree.
        let description = serde_json::to_string(&description).unwrap_or_default();
        let metadata = HashMap::from([(KEY.to_owned(), description)]);
        safetensors::serialize(views, Some(metadata)).unwrap_or_default()
    }

    /// Reads a forest and checks everything in it. What it allocates is no more than the bytes
    /// are long, a few times over.
    ///
    /// # Errors
    /// When any part of it is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Forest, ForestError> {
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|error| wrong(format!("it is not safetensors: {error}")))?;
        let arrays = SafeTensors::deserialize(bytes)
            .map_err(|error| wrong(format!("it is not safetensors: {error}")))?;
        let description = header
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get(KEY))
            .ok_or_else(|| wrong(format!("the metadata has no `{KEY}`")))?;
        let version = serde_json::from_str::<serde_json::Value>(description)
            .ok()
            .and_then(|description| description.get("version")?.as_u64());
        if version != Some(u64::from(VERSION)) {
            return Err(wrong(format!(
                "it is of another version than {VERSION}; train it again or use the program that \
                 wrote it"
            )));
        }
        let description: Description = serde_json::from_str(description)
            .map_err(|error| wrong(format!("`{KEY}` is wrong: {error}")))?;
        let read = |name: &str, dtype: Dtype| array(&arrays, name, dtype);
        let steps = numbers(read("node.step", Dtype::U32)?, u32::from_le_bytes);
        let thresholds = numbers(read("node.threshold", Dtype::F32)?, f32::from_le_bytes);
        let values = numbers(read("node.value", Dtype::F32)?, f32::from_le_bytes);
        let gains = numbers(read("node.gain", Dtype::F32)?, f32::from_le_bytes);
        if [thresholds.len(), values.len(), gains.len()] != [steps.len(); 3] {
            return Err(wrong("the arrays of nodes differ in length".into()));
        }
        let nodes = thresholds
            .into_iter()
            .zip(steps)
            .map(|(threshold, step)| Node { threshold, step })
            .collect();
        let words = numbers(read("mask", Dtype::U64)?, u64::from_le_bytes);
        let (masks, rest) = words.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(wrong("a mask is not whole".into()));
        }
        let mut bins = read("category.bin", Dtype::U8)?;
        let mut category_bins = Vec::new();
        for length in numbers(read("category.length", Dtype::U32)?, u32::from_le_bytes) {
            let (own, rest) = bins
                .split_at_checked(length as usize)
                .ok_or_else(|| wrong("`category.bin` is too short".into()))?;
            category_bins.push(own.to_vec());
            bins = rest;
        }
        if !bins.is_empty() {
            return Err(wrong("`category.bin` is too long".into()));
        }
        let number_columns = description.number_columns as usize;
        let width = number_columns.saturating_add(category_bins.len());
        let roots = numbers(read("tree.root", Dtype::U32)?, u32::from_le_bytes);
        let trees = Trees::new(nodes, values, roots, masks.to_vec(), width)
            .ok_or_else(|| wrong("a node names something that is not there".into()))?;
        let forest = Forest {
            objective: match description.objective {
                Loss::Logistic => Objective::Logistic,
                Loss::Softmax { classes } => Objective::Softmax { classes },
                Loss::SquaredError => Objective::SquaredError,
                Loss::Huber { delta } => Objective::Huber { delta },
            },
            base: numbers(read("base", Dtype::F64)?, f64::from_le_bytes),
            number_columns,
            category_bins,
            trees,
            gains,
        };
        forest.check()?;
        Ok(forest)
    }

    /// Holds every number against what it selects from.
    fn check(&self) -> Result<(), ForestError> {
        let refuse = |what: String| Err(wrong(what));
        let caps = ForestCaps::default();
        match self.objective {
            Objective::Softmax { classes } if u64::from(classes) > caps.classes || classes < 2 => {
                return refuse(format!("{classes} classes"));
            }
            Objective::Huber { delta } if !(delta.is_finite() && delta > 0.0) => {
                return refuse(format!("a delta of {delta}"));
            }
            _ => {}
        }
        let outputs = self.objective.outputs();
        if self.base.len() != outputs || !self.base.iter().all(|base| base.is_finite()) {
            return refuse(format!(
                "{} base scores for {outputs} outputs",
                self.base.len()
            ));
        }
        if !self.trees().is_multiple_of(outputs) {
            return refuse(format!("{} trees for {outputs} outputs", self.trees()));
        }
        let (roots, nodes) = (self.trees.roots(), self.trees.nodes());
        if roots.first().copied().unwrap_or(0) != 0 || roots.is_empty() != nodes.is_empty() {
            return refuse("the first tree does not begin with the first node".into());
        }
        let mut masks = 0;
        for (tree, root) in roots.iter().enumerate() {
            let end = roots
                .get(tree + 1)
                .map_or(nodes.len(), |next| *next as usize);
            let first = *root as usize;
            if first >= end || end > nodes.len() || end - first > MAX_NODES {
                return refuse(format!("tree {tree} has no nodes, or too many"));
            }
            self.check_tree(tree, first..end, &mut masks)?;
        }
        if masks != self.trees.masks().len() {
            return refuse(format!(
                "{} masks for {masks} splits",
                self.trees.masks().len()
            ));
        }
        Ok(())
    }

    /// A tree is one: children are after their parents, each has one, and they are all there is.
    fn check_tree(
        &self,
        tree: usize,
        range: std::ops::Range<usize>,
        masks: &mut usize,
    ) -> Result<(), ForestError> {
        let refuse =
            |place: usize, what: &str| Err(wrong(format!("node {place} of tree {tree}: {what}")));
        let mut has_parent = vec![false; range.len()];
        for place in range.clone() {
            let (node, gain) = (self.trees.nodes()[place], self.gains[place]);
            if !(self.trees.values()[place].is_finite() && gain.is_finite() && gain >= 0.0) {
                return refuse(place, "a number is not finite, or a gain negative");
            }
            if node.left() == 0 {
                if node != Node::LEAF {
                    return refuse(place, "a leaf that splits");
                }
                continue;
            }
            if node.mask().is_some() != (node.column() >= self.number_columns) {
                return refuse(place, "it splits by another kind of column than there is");
            }
            match node.mask() {
                Some(mask) if mask != *masks || node.missing_left() => {
                    return refuse(place, "its mask is not the next one");
                }
                Some(_) => *masks += 1,
                None if node.threshold.is_nan() => {
                    return refuse(place, "its threshold is not a number");
                }
                None => {}
            }
            let left = place + node.left();
            for child in [left, left + 1] {
                let Some(seen) = has_parent.get_mut(child - range.start) else {
                    return refuse(place, "its children are not in its tree");
                };
                if *seen {
                    return refuse(child, "it has two parents");
                }
                *seen = true;
            }
        }
        match has_parent.iter().skip(1).position(|seen| !seen) {
            Some(place) => refuse(range.start + place + 1, "it has no parent"),
            None => Ok(()),
        }
    }
}

fn wrong(what: String) -> ForestError {
    ForestError::BadFile { what }
}

fn bytes<T, const N: usize>(values: &[T], to_bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(to_bytes).collect()
}

fn numbers<T, const N: usize>(bytes: &[u8], from_bytes: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| from_bytes(*chunk)).collect()
}

/// The bytes of an array of one extent.
fn array<'a>(arrays: &SafeTensors<'a>, name: &str, dtype: Dtype) -> Result<&'a [u8], ForestError> {
    let view = arrays
        .tensor(name)
        .map_err(|_| wrong(format!("`{name}` is missing")))?;
    if view.dtype() != dtype || view.shape().len() != 1 {
        return Err(wrong(format!(
            "`{name}` is {:?} of shape {:?} and must be {dtype:?} of one extent",
            view.dtype(),
            view.shape()
        )));
    }
    Ok(view.data())
}
