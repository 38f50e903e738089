//! From groups to instructions: when each buffer is written and last read, where it lies, and
//! what each map reads and writes.

use std::collections::HashMap;

use super::build::{Buffer, Group, Member, Operand, Reference, Root, RootMultiply};
use super::memory::Slab;
use super::view::View;
use super::{
    Instruction, Left, Load, MapProgram, MapStep, Multiplication, Place, Plan, Region, Right,
    Source, Splat, Target,
};
use crate::graph::UnaryOperation;
use crate::ir::{Bits, Map};

/// Makes the plan. Groups come in the order in which they run.
pub(super) fn emit(buffers: Vec<Buffer>, groups: Vec<Group>) -> Plan {
    let mut last_read: Vec<usize> = vec![0; buffers.len()];
    for (index, group) in groups.iter().enumerate() {
        group.reads(|buffer| last_read[buffer] = last_read[buffer].max(index));
    }
    let mut places: Vec<Option<Place>> = buffers.iter().map(|buffer| buffer.place).collect();
    let mut emitter = Emitter {
        buffers: &buffers,
        last_read,
        slab: Slab::default(),
        plan: Plan::default(),
    };
    for (index, group) in groups.into_iter().enumerate() {
        emitter.group(index, group, &mut places);
    }
    emitter.plan.slab = emitter.slab.size();
    emitter.plan
}

impl Group {
    /// Every buffer that the group reads from outside itself.
    fn reads(&self, mut visit: impl FnMut(usize)) {
        match &self.root {
            Root::Maps => {}
            Root::Kernel { reads, .. } => reads.iter().copied().for_each(&mut visit),
            Root::Multiply(multiply) => {
                visit(multiply.left.buffer);
                visit(multiply.right.buffer);
            }
        }
        for operand in self.members.iter().flat_map(|member| &member.operands) {
            if let Operand::Memory { buffer, .. } = operand {
                visit(*buffer);
            }
        }
    }
}

struct Emitter<'a> {
    buffers: &'a [Buffer],
    /// The last group that reads each buffer.
    last_read: Vec<usize>,
    slab: Slab,
    plan: Plan,
}

impl Emitter<'_> {
    fn group(&mut self, index: usize, mut group: Group, places: &mut [Option<Place>]) {
        let elements = group.elements;
        let mut read = Vec::new();
        group.reads(|buffer| read.push(buffer));
        read.sort_unstable();
        read.dedup();
        let mut expiring: Vec<usize> = read
            .iter()
            .copied()
            .filter(|buffer| {
                self.buffers[*buffer].place.is_none() && self.last_read[*buffer] == index
            })
            .collect();
        let absorbed = group.absorb(self.buffers);
        let mut reusable = match &group.root {
            Root::Multiply(multiply) => {
                let operands = [multiply.left.buffer, multiply.right.buffer];
                expiring
                    .iter()
                    .copied()
                    .filter(|buffer| !operands.contains(buffer))
                    .collect()
            }
            _ => expiring.clone(),
        };
        reusable.retain(|buffer| {
            self.buffers[*buffer].elements == elements && group.reads_elementwise(*buffer)
        });
        // The product itself: read by maps at its own position only.
        let root_write = match &group.root {
            Root::Kernel { write, .. } => Some(*write),
            Root::Multiply(multiply) if absorbed.members == 0 => Some(multiply.write),
            _ => None,
        };
        if let Some(write) = root_write {
            self.place(write, places);
            if !self.buffers[write].stored && self.buffers[write].place.is_none() {
                expiring.push(write);
                reusable.push(write);
            }
        } else if let Root::Multiply(_) = &group.root {
            let member = &group.members[absorbed.members - 1];
            self.place(member.buffer, places);
            if !self.buffers[member.buffer].stored {
                expiring.push(member.buffer);
                reusable.push(member.buffer);
            }
        }
        // Results of maps, over what they may take the place of.
        let mut taken_over = Vec::new();
        for member in &group.members[absorbed.members..] {
            if !self.buffers[member.buffer].stored {
                continue;
            }
            if places[member.buffer].is_none()
                && let Some(donor) = reusable.pop()
            {
                expiring.retain(|buffer| *buffer != donor);
                places[member.buffer] = places[donor];
                taken_over.push(member.buffer);
            } else {
                self.place(member.buffer, places);
            }
        }
        self.instructions(group, &absorbed, places, &taken_over);
        for buffer in expiring {
            if let Some(Place {
                region: Region::Slab,
                offset,
            }) = places[buffer]
            {
                self.slab.give_back(offset, self.buffers[buffer].elements);
            }
        }
    }

    fn place(&mut self, buffer: usize, places: &mut [Option<Place>]) {
        if places[buffer].is_none() {
            let offset = self.slab.take(self.buffers[buffer].elements);
            places[buffer] = Some(Place {
                region: Region::Slab,
                offset,
            });
        }
    }

    fn instructions(
        &mut self,
        group: Group,
        absorbed: &Absorbed,
        places: &[Option<Place>],
        taken_over: &[usize],
    ) {
        let at = |reference: Reference| {
            let place = places[reference.buffer];
            // Every buffer that a group names was placed by an earlier group or this one.
            let place = place.unwrap_or(Place {
                region: Region::Slab,
                offset: 0,
            });
            Place {
                offset: place.offset + reference.offset,
                ..place
            }
        };
        let start = |buffer: usize| at(Reference { buffer, offset: 0 });
        let mut moved = 0_u64;
        let program = (group.members.len() > absorbed.members).then(|| {
            let mut program = ProgramMaker {
                buffers: self.buffers,
                at: &at,
                taken_over,
                root: group.members[..absorbed.members]
                    .last()
                    .map(|member| member.buffer)
                    .or(match &group.root {
                        Root::Multiply(multiply) => Some(multiply.write),
                        _ => None,
                    }),
                skipped: absorbed.members,
                program: MapProgram {
                    elements: group.elements,
                    ..MapProgram::default()
                },
                numbers: HashMap::new(),
                dense: HashMap::new(),
                free: Vec::new(),
            };
            program.make(&group.members);
            program.program
        });
        if let Some(program) = &program {
            let factor = program.dense.len() + program.loads.len();
            moved += (factor * group.elements) as u64;
            self.plan.flops = self.plan.flops.saturating_add(program.flops());
            self.plan.registers = self.plan.registers.max(program.registers);
        }
        let values = group.values.into_boxed_slice();
        match group.root {
            Root::Maps => self.plan.instructions.extend(program.map(Instruction::Map)),
            Root::Kernel {
                reads,
                write,
                make,
                flops,
            } => {
                self.plan.flops = self.plan.flops.saturating_add(flops);
                for buffer in reads.iter().chain([&write]) {
                    moved += self.buffers[*buffer].elements as u64;
                }
                for make in make {
                    let instruction = make(&at);
                    self.plan.scratch = self.plan.scratch.max(instruction.scratch());
                    self.plan.instructions.push(instruction);
                }
            }
            Root::Multiply(multiply) => {
                let RootMultiply {
                    batch,
                    m,
                    k,
                    n,
                    left,
                    row_stride,
                    column_stride,
                    ..
                } = multiply;
                let target = group.members[..absorbed.members]
                    .last()
                    .map_or(multiply.write, |member| member.buffer);
                let right = start(multiply.right.buffer);
                let right = Place {
                    offset: right.offset + multiply.right.offset,
                    ..right
                };
                self.plan.flops = self
                    .plan
                    .flops
                    .saturating_add((2 * (batch * m * k) as u64).saturating_mul(n as u64));
                moved += (batch * (m * k + m * n + k * n)) as u64;
                self.plan
                    .instructions
                    .push(Instruction::Multiply(Multiplication {
                        batch,
                        m,
                        k,
                        n,
                        left: Left {
                            place: at(left),
                            row_stride,
                            column_stride,
                            batch_stride: multiply.left_batch_stride,
                        },
                        right: if multiply.packed {
                            Right::Packed { place: right }
                        } else {
                            Right::Dense {
                                place: right,
                                batch_stride: multiply.right_batch_stride,
                            }
                        },
                        target: start(target),
                        bias: absorbed.bias.map(at),
                        relu: absorbed.relu,
                        epilogue: program,
                    }));
            }
        }
        self.plan.bytes_moved = self.plan.bytes_moved.saturating_add(4 * moved);
        let last = self.plan.instructions.len().saturating_sub(1);
        self.plan.computed.resize(last, Box::default());
        self.plan.computed.push(values);
    }
}

/// What a product does by itself of the maps that follow it.
#[derive(Debug, Default)]
struct Absorbed {
    /// How many of the first members.
    members: usize,
    bias: Option<Reference>,
    relu: bool,
}

impl Group {
    /// Finds a bias and a relu that follow a product, where nothing else wants what is before
    /// them. Depends on symbolic shapes only, as all that decides about bits.
    fn absorb(&mut self, buffers: &[Buffer]) -> Absorbed {
        let mut absorbed = Absorbed::default();
        let Root::Multiply(multiply) = &self.root else {
            return absorbed;
        };
        let readers = |of: &dyn Fn(&Operand) -> bool| {
            self.members
                .iter()
                .flat_map(|member| &member.operands)
                .filter(|operand| of(operand))
                .count()
        };
        if buffers[multiply.write].stored
            || readers(&|operand| matches!(operand, Operand::Root)) != 1
        {
            return absorbed;
        }
        let Some(first) = self.members.first() else {
            return absorbed;
        };
        if let Some(bias) = first.bias
            && let Operand::Memory { buffer, view } = &first.operands[bias]
        {
            absorbed.bias = Some(Reference {
                buffer: *buffer,
                offset: view.offset,
            });
            absorbed.members = 1;
        }
        let Some(next) = self.members.get(absorbed.members) else {
            return absorbed;
        };
        let follows = match (absorbed.members, next.operands.as_slice()) {
            (0, [Operand::Root]) => true,
            (1, [Operand::Member(0)]) => {
                !buffers[first.buffer].stored
                    && readers(&|operand| matches!(operand, Operand::Member(0))) == 1
            }
            _ => false,
        };
        if follows && next.map == Map::Unary(UnaryOperation::Relu) {
            absorbed.relu = true;
            absorbed.members += 1;
        }
        absorbed
    }

    /// Whether maps read a buffer only at their own position.
    fn reads_elementwise(&self, buffer: usize) -> bool {
        self.members
            .iter()
            .flat_map(|member| &member.operands)
            .all(|operand| match operand {
                Operand::Memory {
                    buffer: other,
                    view,
                } if *other == buffer => view.offset == 0 && view.is_dense(),
                _ => true,
            })
    }
}

struct ProgramMaker<'a> {
    buffers: &'a [Buffer],
    at: &'a dyn Fn(Reference) -> Place,
    taken_over: &'a [usize],
    /// The buffer with what the kernel of the group wrote.
    root: Option<usize>,
    /// Members that the kernel did.
    skipped: usize,
    program: MapProgram,
    /// Registers that hold the same number everywhere.
    numbers: HashMap<Bits, u16>,
    dense: HashMap<Place, u16>,
    free: Vec<u16>,
}

impl ProgramMaker<'_> {
    fn make(&mut self, members: &[Member]) {
        let mut last_use = vec![0; members.len()];
        for (index, member) in members.iter().enumerate() {
            for operand in &member.operands {
                if let Operand::Member(other) = operand {
                    last_use[*other] = index;
                }
            }
        }
        let mut results: Vec<Option<Source>> = vec![None; members.len()];
        // Operands from memory first, so that their registers stay.
        let outside: Vec<Vec<Option<Source>>> = members[self.skipped..]
            .iter()
            .map(|member| {
                member
                    .operands
                    .iter()
                    .map(|operand| self.outside(operand))
                    .collect()
            })
            .collect();
        for (index, member) in members.iter().enumerate().skip(self.skipped) {
            let mut operands = Vec::with_capacity(3);
            for (place, operand) in member.operands.iter().enumerate() {
                let source = match operand {
                    Operand::Member(other) if *other < self.skipped => self.root_source(),
                    Operand::Member(other) => results[*other].unwrap_or(Source::Register(0)),
                    _ => outside[index - self.skipped][place].unwrap_or(Source::Register(0)),
                };
                operands.push(source);
            }
            let first = operands.first().copied().unwrap_or(Source::Register(0));
            operands.resize(3, first);
            let stored = self.buffers[member.buffer].stored;
            let target = if stored && !self.taken_over.contains(&member.buffer) {
                Target::Dense(self.dense_at((self.at)(Reference {
                    buffer: member.buffer,
                    offset: 0,
                })))
            } else {
                // Taken before operands are given back: a step reads while it writes.
                Target::Register(self.register())
            };
            results[index] = Some(match target {
                Target::Register(register) => Source::Register(register),
                Target::Dense(dense) => Source::Dense(dense),
            });
            self.program.steps.push(MapStep {
                map: member.map,
                operands: [operands[0], operands[1], operands[2]],
                target,
                row_elements: member.row_elements,
            });
            if stored && let Target::Register(register) = target {
                let dense = self.dense_at((self.at)(Reference {
                    buffer: member.buffer,
                    offset: 0,
                }));
                self.program.stores.push((register, dense));
            }
            let mut used: Vec<usize> = member
                .operands
                .iter()
                .filter_map(|operand| match operand {
                    Operand::Member(other) if *other >= self.skipped => Some(*other),
                    _ => None,
                })
                .collect();
            used.sort_unstable();
            used.dedup();
            for other in used {
                if last_use[other] == index
                    && !self.buffers[members[other].buffer].stored
                    && let Some(Source::Register(register)) = results[other]
                {
                    self.free.push(register);
                }
            }
        }
    }

    fn register(&mut self) -> u16 {
        self.free.pop().unwrap_or_else(|| {
            self.program.registers += 1;
            self.program.registers - 1
        })
    }

    /// An operand that does not come from a step of the program.
    fn outside(&mut self, operand: &Operand) -> Option<Source> {
        match operand {
            Operand::Member(_) => None,
            Operand::Root => Some(self.root_source()),
            Operand::Number(bits) => Some(self.splat(*bits)),
            Operand::Memory { buffer, view } => Some(self.memory(*buffer, view)),
        }
    }

    fn root_source(&mut self) -> Source {
        let buffer = self.root.unwrap_or(0);
        Source::Dense(self.dense_at((self.at)(Reference { buffer, offset: 0 })))
    }

    fn splat(&mut self, bits: Bits) -> Source {
        if let Some(register) = self.numbers.get(&bits) {
            return Source::Register(*register);
        }
        let register = self.register();
        self.numbers.insert(bits, register);
        self.program
            .splats
            .push((register, Splat::Number(bits.value())));
        Source::Register(register)
    }

    fn memory(&mut self, buffer: usize, view: &View) -> Source {
        let place = (self.at)(Reference {
            buffer,
            offset: view.offset,
        });
        if view.is_dense() {
            return Source::Dense(self.dense_at(place));
        }
        let axes = view.axes();
        if axes.iter().all(|axis| axis.stride == 0) {
            let splat = Splat::Element(place);
            let known = self
                .program
                .splats
                .iter()
                .find(|(_, other)| *other == splat);
            if let Some((register, _)) = known {
                return Source::Register(*register);
            }
            let register = self.register();
            self.program.splats.push((register, splat));
            return Source::Register(register);
        }
        let known = self
            .program
            .loads
            .iter()
            .find(|load| load.place == place && load.axes == axes);
        if let Some(load) = known {
            return Source::Register(load.register);
        }
        let register = self.register();
        self.program.loads.push(Load {
            register,
            place,
            axes,
        });
        Source::Register(register)
    }

    fn dense_at(&mut self, place: Place) -> u16 {
        let next = self.program.dense.len() as u16;
        let index = *self.dense.entry(place).or_insert(next);
        if index == next {
            self.program.dense.push(place);
        }
        index
    }
}

impl MapProgram {
    fn flops(&self) -> u64 {
        let per_element: u64 = self.steps.iter().map(|step| step.map.flops()).sum();
        per_element * self.elements as u64
    }
}

impl Map {
    /// About how many floating-point operations an element costs.
    fn flops(self) -> u64 {
        match self {
            Map::Copy | Map::WherePositive | Map::Select(_) | Map::ToInt | Map::ToFloat => 0,
            Map::Unary(
                UnaryOperation::Exponential
                | UnaryOperation::Logarithm
                | UnaryOperation::Tanh
                | UnaryOperation::Logistic
                | UnaryOperation::Gelu
                | UnaryOperation::Silu
                | UnaryOperation::Softplus
                | UnaryOperation::Sine
                | UnaryOperation::Cosine
                | UnaryOperation::Tangent
                | UnaryOperation::ErrorFunction
                | UnaryOperation::ExponentialMinusOne
                | UnaryOperation::LogPlusOne
                | UnaryOperation::CubeRoot,
            )
            | Map::GeluSlope
            | Map::BinaryCrossEntropy => 20,
            Map::Binary(crate::graph::BinaryOperation::Power) => 60,
            Map::Dropout { .. } => 40,
            _ => 1,
        }
    }
}
