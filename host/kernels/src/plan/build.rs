//! From values to groups of values that one instruction computes.
//!
//! Values are taken in order. A map joins the group that computed the latest of its operands,
//! if that group runs over the same shape and every operand from it lies element by element;
//! its other operands were computed before that group, so the order stays right. Everything
//! else begins a group of its own.

use std::collections::HashMap;

use super::emit::emit;
use super::shared::SharedLayout;
use super::view::View;
use super::{Place, Plan, Region};
use crate::graph::{Extent, Shape};
use crate::ir::{Bits, Ir, Map, Operation, Product, ValueId};
use crate::shape;

/// The largest number of maps in one group.
const MEMBERS: usize = 64;

/// What is to be planned.
pub(crate) struct Request<'a> {
    pub(crate) ir: &'a Ir,
    pub(crate) symbols: &'a [usize],
    /// What is wanted, and where.
    pub(crate) outputs: Vec<(ValueId, Place)>,
    /// Matrices that are wanted in panels, and where.
    pub(crate) packs: Vec<(ValueId, Place)>,
    /// What is computed already.
    pub(crate) shared: &'a SharedLayout,
    /// The offset of each parameter in the weights.
    pub(crate) parameters: &'a [usize],
    /// The offset of each literal.
    pub(crate) literals: &'a [usize],
    /// The symbol that counts rows.
    pub(crate) rows: Option<u32>,
}

/// Plans.
pub(crate) fn build(request: &Request<'_>) -> Plan {
    let mut builder = Builder {
        request,
        found: HashMap::new(),
        buffers: Vec::new(),
        external: HashMap::new(),
        groups: Vec::new(),
    };
    let live = builder.live();
    for id in live {
        builder.value(id);
    }
    for (id, place) in &request.packs {
        builder.pack(*id, *place);
    }
    for (id, place) in &request.outputs {
        builder.output(*id, *place);
    }
    emit(builder.buffers, builder.groups)
}

/// Memory that one group writes, or that is there from the start.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) elements: usize,
    /// Where it lies, if that is not for the plan to choose.
    pub(super) place: Option<Place>,
    /// The group that writes it.
    pub(super) group: Option<usize>,
    /// Whether another group reads it, or it is a result.
    pub(super) stored: bool,
}

/// A position in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    pub(super) buffer: usize,
    pub(super) offset: usize,
}

/// Where the elements of a value are.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// The same number everywhere.
    Number(Bits),
    Memory {
        buffer: usize,
        view: View,
    },
}

/// What a member of a group reads.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// The member of this index, at the same position.
    Member(usize),
    /// The kernel of the group, at the same position.
    Root,
    Number(Bits),
    Memory {
        buffer: usize,
        view: View,
    },
}

/// A map in a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) map: Map,
    pub(super) operands: Vec<Operand>,
    pub(super) buffer: usize,
    pub(super) row_elements: usize,
    /// Whether this is a sum of the kernel and one row that repeats, by symbolic shape: the
    /// operand that is the row.
    pub(super) bias: Option<usize>,
}

/// What a kernel reads and writes; the instruction is made when places are known.
pub(super) type Make = Box<dyn FnOnce(&dyn Fn(Reference) -> Place) -> super::Instruction>;

/// What a group begins with.
pub(super) enum Root {
    /// Only maps.
    Maps,
    /// Several instructions that write one buffer in turn.
    Kernel {
        reads: Vec<usize>,
        write: usize,
        make: Vec<Make>,
        flops: u64,
    },
    Multiply(RootMultiply),
}

/// A matrix product.
pub(super) struct RootMultiply {
    pub(super) batch: usize,
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) left: Reference,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
    pub(super) left_batch_stride: usize,
    pub(super) right: Reference,
    pub(super) packed: bool,
    pub(super) right_batch_stride: usize,
    pub(super) write: usize,
}

/// What one instruction, or a few in a row, compute.
pub(super) struct Group {
    pub(super) root: Root,
    pub(super) members: Vec<Member>,
    shape: Shape,
    pub(super) elements: usize,
    /// The values it computes.
    pub(super) values: Vec<ValueId>,
}

pub(super) struct Builder<'a> {
    pub(super) request: &'a Request<'a>,
    found: HashMap<ValueId, Found>,
    pub(super) buffers: Vec<Buffer>,
    external: HashMap<Place, usize>,
    pub(super) groups: Vec<Group>,
}

impl Builder<'_> {
    /// The values to compute, in order; shared ones count as given.
    fn live(&self) -> Vec<ValueId> {
        let ir = self.request.ir;
        let mut live = vec![false; ir.values.len()];
        let wanted = self.request.outputs.iter().chain(&self.request.packs);
        for (id, _) in wanted {
            live[*id as usize] = true;
        }
        for id in (0..ir.values.len()).rev() {
            let value = &ir.values[id];
            if !live[id] || self.request.shared.values.contains_key(&(id as ValueId)) {
                continue;
            }
            for (place, operand) in value.operands.iter().enumerate() {
                let packed = place == 1
                    && value.operation == Operation::Matmul(Product::Shared)
                    && self.request.shared.packed.contains_key(operand);
                live[*operand as usize] |= !packed;
            }
        }
        (0..ir.values.len())
            .filter(|id| live[*id])
            .map(|id| id as ValueId)
            .collect()
    }

    pub(super) fn extents(&self, id: ValueId) -> Vec<usize> {
        shape::resolve(self.request.ir.shape(id), self.request.symbols)
    }

    pub(super) fn external(&mut self, region: Region, offset: usize, elements: usize) -> usize {
        let place = Place { region, offset };
        *self.external.entry(place).or_insert_with(|| {
            self.buffers.push(Buffer {
                elements,
                place: Some(place),
                group: None,
                stored: true,
            });
            self.buffers.len() - 1
        })
    }

    pub(super) fn buffer(&mut self, elements: usize, group: usize) -> usize {
        self.buffers.push(Buffer {
            elements,
            place: None,
            group: Some(group),
            stored: false,
        });
        self.buffers.len() - 1
    }

    fn value(&mut self, id: ValueId) {
        let request = self.request;
        let value = request.ir.value(id);
        let extents = self.extents(id);
        let given = match &value.operation {
            _ if request.shared.values.contains_key(&id) => {
                Some((Region::Shared, request.shared.values[&id]))
            }
            Operation::Input(index) => Some((Region::Input(*index), 0)),
            Operation::Parameter(index) => {
                Some((Region::Weights, request.parameters[*index as usize]))
            }
            Operation::Literal(index) => {
                Some((Region::Literals, request.literals[*index as usize]))
            }
            _ => None,
        };
        if let Some((region, offset)) = given {
            let buffer = self.external(region, offset, extents.iter().product());
            self.found.insert(
                id,
                Found::Memory {
                    buffer,
                    view: View::dense(extents),
                },
            );
            return;
        }
        let found = match &value.operation {
            Operation::Scalar(bits) => Found::Number(*bits),
            Operation::InverseCount(counted) => {
                let count: usize = shape::resolve(counted, request.symbols).iter().product();
                Found::Number(Bits::from((1.0 / count as f64) as f32))
            }
            operation if operation.is_view() => self.view(id, operation, extents),
            Operation::Map(map) => self.map(id, *map),
            operation => self.kernel(id, operation),
        };
        self.found.insert(id, found);
    }

    fn view(&mut self, id: ValueId, operation: &Operation, extents: Vec<usize>) -> Found {
        let operand = self.request.ir.value(id).operands[0];
        let (buffer, view) = match self.found(operand) {
            Found::Number(bits) => return Found::Number(bits),
            Found::Memory { buffer, view } => (buffer, view),
        };
        let view = match operation {
            Operation::Transpose(permutation) => view.transpose(permutation),
            Operation::Slice { axis, start } => view.slice(*axis, *start, extents[*axis]),
            Operation::Window {
                axis,
                stride,
                dilation,
            } => view.window(
                *axis,
                [extents[*axis], extents[axis + 1]],
                [*stride, *dilation],
            ),
            Operation::Broadcast => {
                let (from, to) = (self.request.ir.shape(operand), self.request.ir.shape(id));
                let extra = to.len() - from.len();
                let repeated: Vec<bool> = (0..to.len())
                    .map(|axis| axis < extra || from[axis - extra] != to[axis])
                    .collect();
                view.broadcast(extents, &repeated)
            }
            _ => match view.reshape(&extents) {
                Some(view) => view,
                None => {
                    let reference = self.dense(operand);
                    return Found::Memory {
                        buffer: reference.buffer,
                        view: View {
                            offset: reference.offset,
                            ..View::dense(extents)
                        },
                    };
                }
            },
        };
        Found::Memory { buffer, view }
    }

    pub(super) fn found(&self, id: ValueId) -> Found {
        // Values come after their operands.
        self.found[&id].clone()
    }

    /// Where a value lies row-major, copied if it does not.
    pub(super) fn dense(&mut self, id: ValueId) -> Reference {
        let found = self.found(id);
        if let Found::Memory { buffer, view } = &found
            && view.is_dense()
        {
            self.buffers[*buffer].stored = true;
            return Reference {
                buffer: *buffer,
                offset: view.offset,
            };
        }
        let buffer = self.copy(id, found);
        self.buffers[buffer].stored = true;
        let view = View::dense(self.extents(id));
        self.found.insert(id, Found::Memory { buffer, view });
        Reference { buffer, offset: 0 }
    }

    /// A group that copies a value to a buffer of its own.
    fn copy(&mut self, id: ValueId, found: Found) -> usize {
        let operand = self.read_from_outside(found);
        let elements = self.extents(id).iter().product();
        let buffer = self.buffer(elements, self.groups.len());
        let member = Member {
            map: Map::Copy,
            operands: vec![operand],
            buffer,
            row_elements: 0,
            bias: None,
        };
        let shape = self.request.ir.shape(id).to_vec();
        self.groups.push(Group {
            root: Root::Maps,
            members: vec![member],
            shape,
            elements,
            values: vec![id],
        });
        buffer
    }

    fn read_from_outside(&mut self, found: Found) -> Operand {
        match found {
            Found::Number(bits) => Operand::Number(bits),
            Found::Memory { buffer, view } => {
                self.buffers[buffer].stored = true;
                Operand::Memory { buffer, view }
            }
        }
    }

    fn map(&mut self, id: ValueId, map: Map) -> Found {
        let value = self.request.ir.value(id);
        let extents = self.extents(id);
        let elements: usize = extents.iter().product();
        // Every operand as the result's shape sees it.
        let operands: Vec<Found> = value
            .operands
            .iter()
            .map(|operand| match self.found(*operand) {
                Found::Memory { buffer, view } => {
                    let from = self.request.ir.shape(*operand);
                    let extra = value.shape.len() - from.len();
                    let repeated: Vec<bool> = (0..value.shape.len())
                        .map(|axis| axis < extra || from[axis - extra] != value.shape[axis])
                        .collect();
                    Found::Memory {
                        buffer,
                        view: view.broadcast(extents.clone(), &repeated),
                    }
                }
                number => number,
            })
            .collect();
        let latest = operands
            .iter()
            .filter_map(|operand| self.group_of(operand))
            .max();
        let identity = View::dense(extents.clone());
        let joined = latest.filter(|group| {
            let open = &self.groups[*group];
            !matches!(open.root, Root::Kernel { .. })
                && open.members.len() < MEMBERS
                && open.shape == value.shape
                && operands.iter().all(|operand| match operand {
                    Found::Memory { view, .. } => {
                        self.group_of(operand) != Some(*group) || *view == identity
                    }
                    Found::Number(_) => true,
                })
        });
        let group = joined.unwrap_or_else(|| {
            self.groups.push(Group {
                root: Root::Maps,
                members: Vec::new(),
                shape: value.shape.clone(),
                elements,
                values: Vec::new(),
            });
            self.groups.len() - 1
        });
        let bias = self.bias(group, map, &value.operands, &operands);
        let operands = operands
            .into_iter()
            .map(|operand| {
                if self.group_of(&operand) == Some(group)
                    && let Found::Memory { buffer, .. } = operand
                {
                    let members = &self.groups[group].members;
                    members
                        .iter()
                        .position(|member| member.buffer == buffer)
                        .map_or(Operand::Root, Operand::Member)
                } else {
                    self.read_from_outside(operand)
                }
            })
            .collect();
        let buffer = self.buffer(elements, group);
        let row_elements = match value.shape.first() {
            Some(Extent::Symbol(symbol)) if self.request.rows == Some(*symbol) => {
                extents[1..].iter().product()
            }
            _ => 0,
        };
        self.groups[group].values.push(id);
        self.groups[group].members.push(Member {
            map,
            operands,
            buffer,
            row_elements,
            bias,
        });
        Found::Memory {
            buffer,
            view: identity,
        }
    }

    /// The operand of a sum that is one row to be added to every row of the group's product.
    fn bias(&self, group: usize, map: Map, ids: &[ValueId], operands: &[Found]) -> Option<usize> {
        let Root::Multiply(multiply) = &self.groups[group].root else {
            return None;
        };
        if map != Map::Binary(crate::graph::BinaryOperation::Add)
            || !self.groups[group].members.is_empty()
        {
            return None;
        }
        let is_root = |operand: &Found| matches!(operand, Found::Memory { buffer, .. } if *buffer == multiply.write);
        let row = if is_root(&operands[0]) { 1 } else { 0 };
        let shape = self.request.ir.shape(ids[row]);
        let (last, leading) = shape.split_last()?;
        let one_row = leading.iter().all(|extent| *extent == Extent::Fixed(1))
            && self.groups[group].shape.last() == Some(last);
        let dense = match self.found(ids[row]) {
            Found::Memory { view, .. } => view.is_dense(),
            Found::Number(_) => false,
        };
        (one_row && dense && !is_root(&operands[row])).then_some(row)
    }

    fn group_of(&self, found: &Found) -> Option<usize> {
        match found {
            Found::Memory { buffer, .. } => self.buffers[*buffer].group,
            Found::Number(_) => None,
        }
    }

    /// Begins a group that is not of maps alone.
    pub(super) fn begin(&mut self, id: ValueId, root: Root) {
        let elements = self.extents(id).iter().product();
        let shape = self.request.ir.shape(id).to_vec();
        self.groups.push(Group {
            root,
            members: Vec::new(),
            shape,
            elements,
            values: vec![id],
        });
    }

    fn pack(&mut self, id: ValueId, place: Place) {
        let extents = self.extents(id);
        let (k, n) = (extents[0], extents[1]);
        let (source, row_stride, column_stride) = match self.found(id) {
            Found::Memory { buffer, view } => {
                self.buffers[buffer].stored = true;
                (
                    Reference {
                        buffer,
                        offset: view.offset,
                    },
                    view.strides[0],
                    view.strides[1],
                )
            }
            Found::Number(_) => (self.dense(id), n, 1),
        };
        let write = self.external(
            place.region,
            place.offset,
            super::shared::packed_elements(k, n),
        );
        let make: Make = Box::new(move |at| super::Instruction::Pack {
            source: at(source),
            row_stride,
            column_stride,
            k,
            n,
            target: at(Reference {
                buffer: write,
                offset: 0,
            }),
        });
        self.begin(
            id,
            Root::Kernel {
                reads: vec![source.buffer],
                write,
                make: vec![make],
                flops: 0,
            },
        );
    }

    fn output(&mut self, id: ValueId, place: Place) {
        let found = self.found(id);
        let buffer = match &found {
            Found::Memory { buffer, view }
                if self.buffers[*buffer].place.is_none()
                    && view.is_dense()
                    && view.offset == 0
                    && view.elements() == self.buffers[*buffer].elements =>
            {
                *buffer
            }
            _ => self.copy(id, found),
        };
        self.buffers[buffer].place = Some(place);
        self.buffers[buffer].stored = true;
    }
}
