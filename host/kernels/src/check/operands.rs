//! What nodes ask of their operands and of the numbers they carry.

use super::Type;
use super::nodes::{Checker, Inferred};
use crate::caps::Caps;
use crate::graph::{DType, Extent, NodeId, Shape};
use crate::shape;

impl Checker<'_> {
    pub(super) fn operand(&self, id: NodeId) -> Inferred<&Type> {
        self.types
            .get(id as usize)
            .ok_or_else(|| format!("refers to node {id}; a node refers only to nodes before it"))
    }

    pub(super) fn float(&self, id: NodeId) -> Inferred {
        self.of_dtype(id, DType::Float32)
    }

    pub(super) fn int(&self, id: NodeId) -> Inferred {
        self.of_dtype(id, DType::Int32)
    }

    pub(super) fn of_dtype(&self, id: NodeId, dtype: DType) -> Inferred {
        let found = self.operand(id)?;
        if found.dtype == dtype {
            Ok(found.clone())
        } else {
            Err(format!(
                "operand {id} is {} and must be {}; cast it",
                found.dtype.name(),
                dtype.name()
            ))
        }
    }

    pub(super) fn pair(&self, left: NodeId, right: NodeId) -> Inferred<(DType, Shape)> {
        let (left_id, right_id) = (left, right);
        let (left, right) = (self.operand(left)?, self.operand(right)?);
        if left.dtype != right.dtype {
            return Err(format!(
                "operand {left_id} is {} and operand {right_id} is {}; cast one",
                left.dtype.name(),
                right.dtype.name()
            ));
        }
        Ok((left.dtype, self.broadcast(&left.shape, &right.shape)?))
    }

    pub(super) fn broadcast(&self, left: &[Extent], right: &[Extent]) -> Inferred<Shape> {
        shape::broadcast(left, right).ok_or_else(|| {
            format!(
                "{} and {} do not broadcast",
                self.describe(left),
                self.describe(right)
            )
        })
    }

    pub(super) fn same(&self, left: NodeId, right: NodeId) -> Inferred {
        let (left, right) = (self.float(left)?, self.float(right)?);
        if left == right {
            Ok(left)
        } else {
            Err(format!(
                "predictions {} and targets {} differ in shape",
                self.describe(&left.shape),
                self.describe(&right.shape)
            ))
        }
    }

    pub(super) fn declared(&self, shape: &[Extent]) -> Inferred<()> {
        for extent in shape {
            if let Extent::Symbol(index) = extent
                && *index as usize >= self.graph.symbols.len()
            {
                return Err(format!("symbol {index}, of {}", self.graph.symbols.len()));
            }
        }
        Ok(())
    }

    pub(super) fn literal(&mut self, shape: &[u32], values: usize) -> Inferred<()> {
        let elements = self.fixed_elements(shape)?;
        if elements != values as u64 {
            return Err(format!("{values} values for a literal of shape {shape:?}"));
        }
        self.literal_elements = self.literal_elements.saturating_add(elements);
        if self.literal_elements > self.caps.literal_elements {
            return Err(format!(
                "literals of {} elements up to here, over the cap of {}",
                self.literal_elements, self.caps.literal_elements
            ));
        }
        Ok(())
    }

    pub(super) fn fixed_elements(&self, shape: &[u32]) -> Inferred<u64> {
        shape
            .iter()
            .try_fold(1_u64, |product, extent| {
                product.checked_mul(u64::from(*extent))
            })
            .ok_or_else(|| format!("shape {shape:?} has too many elements"))
    }

    pub(super) fn fixed_extent(&self, shape: &[Extent], axis: usize) -> Inferred<u32> {
        match shape[axis] {
            Extent::Fixed(extent) => Ok(extent),
            Extent::Symbol(_) => Err(format!(
                "axis {axis} of {} is a symbol and must be fixed",
                self.describe(shape)
            )),
        }
    }

    pub(super) fn axis(&self, axis: u32, rank: usize) -> Inferred<usize> {
        if (axis as usize) < rank {
            Ok(axis as usize)
        } else {
            Err(format!("axis {axis} of an operand of rank {rank}"))
        }
    }

    pub(super) fn axes(&self, axes: &[u32], rank: usize) -> Inferred<Vec<usize>> {
        if axes.len() > rank {
            return Err(format!("{} axes of an operand of rank {rank}", axes.len()));
        }
        let mut found = Vec::with_capacity(axes.len());
        for axis in axes {
            let axis = self.axis(*axis, rank)?;
            if found.contains(&axis) {
                return Err(format!("axis {axis} is named twice"));
            }
            found.push(axis);
        }
        Ok(found)
    }

    pub(super) fn check_size(&self, found: &Type) -> Inferred<()> {
        let rank = self.caps.rank.min(Caps::RANK);
        if found.shape.len() > rank {
            return Err(format!(
                "rank {}, over the cap of {rank}",
                found.shape.len()
            ));
        }
        match shape::largest_elements(&found.shape, &self.graph.symbols) {
            Some(elements) if elements <= self.caps.elements_per_tensor => Ok(()),
            _ => Err(format!(
                "{} is more elements than the cap of {}, with symbols at their maximum",
                self.describe(&found.shape),
                self.caps.elements_per_tensor
            )),
        }
    }

    pub(super) fn describe(&self, shape: &[Extent]) -> String {
        shape::describe(shape, &self.graph.symbols)
    }
}
