//! The instructions for given extents: what is fused, and where everything lies.

use super::form::{Function, Line, LineKind, Operand, Returned};
use super::names::{quoted, short, typed};
use super::values::{attention, described, fold_name, map_described, rows, set, wanted, ways};
use crate::graph::Node;
use crate::ir::{Operation, ValueId};
use crate::plan::{
    Attention, Instruction, Load, MapProgram, Multiplication, PANEL, Place, Plan, Region, Right,
    Source, Splat, Target,
};
use crate::program::{Program, Shared, Task, Which};

/// What runs for the tasks: first what depends on the weights alone, then each of them.
pub(super) fn functions(
    program: &Program,
    chosen: &[(Which, &Task)],
    extents: &[usize],
) -> Vec<Function> {
    let mut functions = Vec::new();
    let entries = chosen.iter().any(|(which, _)| *which != Which::Step);
    if entries {
        functions.extend(shared(program, &program.shared, "once for the weights"));
    }
    let mut steps = Vec::new();
    for (which, task) in chosen {
        if *which == Which::Step
            && let Some(training) = &program.training
        {
            let what = "once for the weights of a step";
            steps.extend(shared(program, &training.shared, what));
        }
        steps.push(function(program, *which, task, extents));
    }
    functions.extend(steps);
    functions
}

/// The plan of what depends on the weights alone; none where there is nothing of it.
fn shared(program: &Program, shared: &Shared, name: &str) -> Option<Function> {
    if shared.plan.instructions.is_empty() {
        return None;
    }
    let listed = Listed {
        program,
        names: &[],
    };
    let lines = listed.lines(&shared.plan);
    Some(Function {
        keyword: "plan",
        name: Some(name.to_owned()),
        notes: vec![format!(
            "{} numbers are kept, and {} lie between",
            shared.layout.elements, shared.plan.slab
        )],
        cost: None,
        lines,
        returns: Vec::new(),
        declares: Vec::new(),
        ends: Vec::new(),
    })
}

fn function(program: &Program, which: Which, task: &Task, extents: &[usize]) -> Function {
    let (piece, pieces) = program.piece(which, task, extents);
    let plan = program.make_plan(which, &piece);
    let wanted = wanted(program, which, task);
    let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
    let listed = Listed {
        program,
        names: &names,
    };
    let lines = listed.lines(&plan);
    let computed = plan
        .computed
        .iter()
        .map(|values| values.len())
        .sum::<usize>();
    let mut notes = vec![rows(program, task)];
    if let Some(symbol) = task.rows
        && pieces > 1
    {
        let name = &program.graph().symbols[symbol as usize].name;
        let size = piece[symbol as usize];
        notes.push(format!(
            "`{name}` = {} in {pieces} pieces; this is the plan of one of {size}",
            extents[symbol as usize]
        ));
    }
    notes.push(format!(
        "{computed} values in {} instructions; {} numbers lie between; {} registers",
        plan.instructions.len(),
        plan.slab + plan.scratch,
        plan.registers
    ));
    let returns = wanted.iter().enumerate().map(|(index, (name, value))| {
        let made_by = lines_that_write(&plan, index as u32).or_else(|| position(&plan, *value));
        Returned {
            name: name.clone(),
            value: format!("%{value}"),
            made_by,
        }
    });
    Function {
        keyword: "plan",
        name: Some(task.name.clone()),
        notes,
        cost: Some(program.cost(which, task, extents)),
        returns: returns.collect(),
        lines,
        declares: Vec::new(),
        ends: Vec::new(),
    }
}

fn position(plan: &Plan, value: ValueId) -> Option<usize> {
    plan.computed
        .iter()
        .position(|values| values.contains(&value))
}

fn lines_that_write(plan: &Plan, output: u32) -> Option<usize> {
    plan.instructions.iter().rposition(|instruction| {
        let written = Accesses::of(instruction).writes;
        written
            .iter()
            .any(|access| access.place.region == Region::Output(output))
    })
}

/// A stretch of memory that an instruction touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    place: Place,
    elements: usize,
}

impl Access {
    fn new(place: Place, elements: usize) -> Access {
        Access { place, elements }
    }

    fn overlaps(&self, other: &Access) -> bool {
        self.place.region == other.place.region
            && self.place.offset < other.place.offset + other.elements
            && other.place.offset < self.place.offset + self.elements
    }

    fn covers(&self, other: &Access) -> bool {
        self.place.region == other.place.region
            && self.place.offset <= other.place.offset
            && other.place.offset + other.elements <= self.place.offset + self.elements
    }
}

/// What an instruction reads and writes.
#[derive(Debug, Default)]
struct Accesses {
    reads: Vec<Access>,
    writes: Vec<Access>,
}

impl Accesses {
    fn of(instruction: &Instruction) -> Accesses {
        let mut found = Accesses::default();
        let mut read = |place, elements| found.reads.push(Access::new(place, elements));
        let mut write = |place, elements| found.writes.push(Access::new(place, elements));
        match *instruction {
            Instruction::Map(ref program) => return Accesses::of_map(program),
            Instruction::Multiply(ref of) => return Accesses::of_product(of),
            Instruction::Pack {
                source,
                row_stride,
                column_stride,
                k,
                n,
                target,
            } => {
                read(source, reach(&[(k, row_stride), (n, column_stride)]));
                write(target, n.div_ceil(PANEL) * PANEL * k);
            }
            Instruction::Reduce {
                source,
                target,
                outer,
                count,
                inner,
                ..
            } => {
                read(source, outer * count * inner);
                write(target, outer * inner);
            }
            Instruction::Argmax {
                source,
                target,
                rows,
                count,
            } => {
                read(source, rows * count);
                write(target, rows);
            }
            Instruction::Softmax {
                source,
                target,
                rows,
                count,
                ..
            }
            | Instruction::Normalize {
                source,
                target,
                rows,
                count,
                ..
            } => {
                read(source, rows * count);
                write(target, rows * count);
            }
            Instruction::NormalizeSlope {
                source,
                slope,
                target,
                rows,
                count,
                ..
            } => {
                read(source, rows * count);
                read(slope, rows * count);
                write(target, rows * count);
            }
            Instruction::CrossEntropy {
                logits,
                labels,
                target,
                rows,
                count,
                ..
            } => {
                read(logits, rows * count);
                read(labels, rows);
                write(target, rows);
            }
            Instruction::CrossEntropySlope {
                logits,
                labels,
                slope,
                target,
                rows,
                count,
                ..
            } => {
                read(logits, rows * count);
                read(labels, rows);
                read(slope, rows);
                write(target, rows * count);
            }
            Instruction::Gather {
                table,
                indices,
                target,
                count,
                size,
                width,
                ..
            } => {
                read(table, size * width);
                read(indices, count);
                write(target, count * width);
            }
            Instruction::Scatter {
                indices,
                source,
                target,
                count,
                size,
                width,
                ..
            } => {
                read(indices, count);
                read(source, count * width);
                write(target, size * width);
            }
            Instruction::OneHot {
                indices,
                target,
                count,
                depth,
            } => {
                read(indices, count);
                write(target, count * depth);
            }
            Instruction::Zero { target, elements } => write(target, elements),
            Instruction::CumulativeSum {
                source,
                target,
                outer,
                count,
                inner,
                ..
            } => {
                read(source, outer * count * inner);
                write(target, outer * count * inner);
            }
            Instruction::TopK {
                source,
                target,
                rows,
                count,
                kept,
            } => {
                read(source, rows * count);
                write(target, rows * kept);
            }
            Instruction::TakeAlong {
                source,
                indices,
                target,
                rows,
                count,
                taken,
                ..
            } => {
                read(source, rows * count);
                read(indices, rows * taken);
                write(target, rows * taken);
            }
            Instruction::PutAlong {
                indices,
                source,
                target,
                rows,
                count,
                taken,
                ..
            } => {
                read(indices, rows * taken);
                read(source, rows * taken);
                write(target, rows * count);
            }
            Instruction::Unwindow {
                source,
                target,
                outer,
                windows,
                size,
                extent,
                inner,
                ..
            } => {
                read(source, outer * windows * size * inner);
                write(target, outer * extent * inner);
            }
            Instruction::Unpack {
                source,
                target,
                rows,
                words,
                count,
                ..
            } => {
                read(source, rows * words);
                write(target, rows * count);
            }
            Instruction::Attention(of) => {
                let (own, others) = attention_elements(&of);
                read(of.query, own);
                read(of.key, others);
                read(of.value, others);
                write(of.target, own);
            }
            Instruction::AttentionSlope { of, slope } => {
                let (own, others) = attention_elements(&of);
                read(of.query, own);
                read(of.key, others);
                read(of.value, others);
                read(slope, own);
                write(of.target, own + 2 * others);
            }
            Instruction::CopyRows {
                source,
                target,
                rows,
                width,
                source_stride,
                target_stride,
            } => {
                read(source, reach(&[(rows, source_stride), (width, 1)]));
                write(target, reach(&[(rows, target_stride), (width, 1)]));
            }
        }
        found
    }

    fn of_map(program: &MapProgram) -> Accesses {
        let mut found = Accesses::default();
        for (_, splat) in &program.splats {
            if let Splat::Element(place) = splat {
                found.reads.push(Access::new(*place, 1));
            }
        }
        for load in &program.loads {
            let axes: Vec<(usize, usize)> = load
                .axes
                .iter()
                .map(|axis| (axis.extent, axis.stride))
                .collect();
            found.reads.push(Access::new(load.place, reach(&axes)));
        }
        let mut made: Vec<u16> = Vec::new();
        let dense = |index: u16| Access::new(program.dense[index as usize], program.elements);
        for step in &program.steps {
            for source in step.operands {
                if let Source::Dense(index) = source
                    && !made.contains(&index)
                    && !found.reads.contains(&dense(index))
                {
                    found.reads.push(dense(index));
                }
            }
            if let Target::Dense(index) = step.target {
                made.push(index);
                found.writes.push(dense(index));
            }
        }
        for (_, index) in &program.stores {
            found.writes.push(dense(*index));
        }
        found
    }

    fn of_product(of: &Multiplication) -> Accesses {
        let mut found = Accesses::default();
        let Multiplication { batch, m, k, n, .. } = *of;
        let left = reach(&[
            (batch, of.left.batch_stride),
            (m, of.left.row_stride),
            (k, of.left.column_stride),
        ]);
        found.reads.push(Access::new(of.left.place, left));
        found.reads.push(match of.right {
            Right::Dense {
                place,
                batch_stride,
            } => Access::new(place, reach(&[(batch, batch_stride), (k * n, 1)])),
            Right::Packed { place } => Access::new(place, n.div_ceil(PANEL) * PANEL * k),
        });
        if let Some(bias) = of.bias {
            found.reads.push(Access::new(bias, n));
        }
        let target = Access::new(of.target, batch * m * n);
        if let Some(epilogue) = &of.epilogue {
            let after = Accesses::of_map(epilogue);
            let others = after.reads.iter().filter(|read| **read != target);
            found.reads.extend(others.copied());
            found.writes.push(target);
            found.writes.extend(after.writes);
        } else {
            found.writes.push(target);
        }
        found
    }
}

/// Elements of the query of an attention, and of its key.
fn attention_elements(of: &Attention) -> (usize, usize) {
    let one_head = of.batch * of.time * of.width;
    (one_head * of.heads, one_head * of.key_heads)
}

/// Elements from the first to the last of a strided block.
fn reach(axes: &[(usize, usize)]) -> usize {
    if axes.iter().any(|(extent, _)| *extent == 0) {
        return 0;
    }
    1 + axes
        .iter()
        .map(|(extent, stride)| (extent - 1) * stride)
        .sum::<usize>()
}

struct Listed<'a> {
    program: &'a Program,
    /// The names of the results.
    names: &'a [String],
}

impl Listed<'_> {
    fn lines(&self, plan: &Plan) -> Vec<Line> {
        let mut written: Vec<Accesses> = Vec::new();
        let mut lines = Vec::with_capacity(plan.instructions.len());
        for (index, instruction) in plan.instructions.iter().enumerate() {
            let accesses = Accesses::of(instruction);
            let values = plan.computed.get(index).map_or(&[][..], |values| values);
            lines.push(self.line(instruction, &accesses, values, &written));
            written.push(accesses);
        }
        lines
    }

    fn line(
        &self,
        instruction: &Instruction,
        accesses: &Accesses,
        values: &[ValueId],
        written: &[Accesses],
    ) -> Line {
        let operands = accesses
            .reads
            .iter()
            .map(|read| Operand {
                text: self.stretch(read),
                made_by: makers(read, written),
            })
            .collect();
        let mut stretches: Vec<String> = Vec::new();
        for write in &accesses.writes {
            let stretch = self.stretch(write);
            if !stretches.contains(&stretch) {
                stretches.push(stretch);
            }
        }
        let (operation, mut attributes, body, kind) = self.described(instruction, values);
        let in_place = accesses.writes.iter().any(|write| {
            accesses
                .reads
                .iter()
                .any(|read| read == write && read.elements > 0)
        });
        if in_place {
            attributes.push(("in place".to_owned(), None));
        }
        let gives = values.last().map(|value| {
            let value = self.program.ir.value(*value);
            typed(value.dtype, &value.shape, &self.program.graph().symbols)
        });
        let note: Vec<String> = values.iter().map(|value| format!("%{value}")).collect();
        Line {
            result: stretches.join(", "),
            operation,
            operands,
            attributes,
            gives,
            note: (!note.is_empty()).then(|| note.join(", ")),
            body,
            kind,
        }
    }

    #[expect(
        clippy::type_complexity,
        reason = "the four things that a line is made of"
    )]
    fn described(
        &self,
        instruction: &Instruction,
        values: &[ValueId],
    ) -> (String, Vec<(String, Option<String>)>, Vec<String>, LineKind) {
        let kernel =
            |name: &str, attributes| (name.to_owned(), attributes, Vec::new(), LineKind::Kernel);
        let rows_of = |rows: usize, count: usize| set("rows", format_args!("{rows} x {count}"));
        match *instruction {
            Instruction::Map(ref program) => {
                let body = self.steps(program);
                let name = match program.steps.as_slice() {
                    [step] => map_described(step.map).0,
                    _ => "fused".to_owned(),
                };
                let body = if program.steps.len() + program.loads.len() + program.splats.len() > 1 {
                    body
                } else {
                    Vec::new()
                };
                (
                    name,
                    vec![set("elements", program.elements)],
                    body,
                    LineKind::Map,
                )
            }
            Instruction::Multiply(ref of) => {
                let mut attributes = Vec::new();
                if of.batch != 1 {
                    attributes.push(set("batch", of.batch));
                }
                attributes.push(set(
                    "m x k x n",
                    format_args!("{} x {} x {}", of.m, of.k, of.n),
                ));
                if of.left.column_stride != 1 && of.k > 1 {
                    attributes.push(("left transposed".to_owned(), None));
                }
                if matches!(of.right, Right::Packed { .. }) {
                    attributes.push(("packed".to_owned(), None));
                }
                if of.bias.is_some() {
                    attributes.push(("bias".to_owned(), None));
                }
                if of.relu {
                    attributes.push(("relu".to_owned(), None));
                }
                let body = of
                    .epilogue
                    .as_ref()
                    .map_or(Vec::new(), |epilogue| self.steps(epilogue));
                ("multiply".to_owned(), attributes, body, LineKind::Product)
            }
            Instruction::Pack { k, n, .. } => {
                kernel("pack", vec![set("k x n", format_args!("{k} x {n}"))])
            }
            Instruction::Reduce {
                fold,
                outer,
                count,
                inner,
                ..
            } => kernel(
                &format!("reduce-{}", fold_name(fold)),
                vec![set(
                    "outer x count x inner",
                    format_args!("{outer} x {count} x {inner}"),
                )],
            ),
            Instruction::Argmax { rows, count, .. } => kernel("argmax", vec![rows_of(rows, count)]),
            Instruction::Softmax {
                rows,
                count,
                logarithm,
                ..
            } => kernel(
                if logarithm { "log-softmax" } else { "softmax" },
                vec![rows_of(rows, count)],
            ),
            Instruction::Normalize {
                rows,
                count,
                epsilon,
                ..
            } => kernel(
                "normalize",
                vec![rows_of(rows, count), set("epsilon", epsilon)],
            ),
            Instruction::NormalizeSlope {
                rows,
                count,
                epsilon,
                ..
            } => kernel(
                "normalize-slope",
                vec![rows_of(rows, count), set("epsilon", epsilon)],
            ),
            Instruction::CrossEntropy { rows, count, .. } => {
                kernel("cross-entropy", vec![rows_of(rows, count)])
            }
            Instruction::CrossEntropySlope { rows, count, .. } => {
                kernel("cross-entropy-slope", vec![rows_of(rows, count)])
            }
            Instruction::Gather {
                count, size, width, ..
            } => kernel(
                "gather",
                vec![
                    set("count", count),
                    set("table", format_args!("{size} x {width}")),
                ],
            ),
            Instruction::Scatter {
                count, size, width, ..
            } => kernel(
                "scatter-add",
                vec![
                    set("count", count),
                    set("table", format_args!("{size} x {width}")),
                ],
            ),
            Instruction::OneHot { count, depth, .. } => {
                kernel("one-hot", vec![set("count", count), set("depth", depth)])
            }
            Instruction::CumulativeSum {
                outer,
                count,
                inner,
                exclusive,
                reverse,
                ..
            } => {
                let sizes = set(
                    "outer x count x inner",
                    format_args!("{outer} x {count} x {inner}"),
                );
                let ways = ways(exclusive, reverse);
                kernel("cumulative-sum", [sizes].into_iter().chain(ways).collect())
            }
            Instruction::TopK {
                rows, count, kept, ..
            } => kernel("top-k", vec![rows_of(rows, count), set("kept", kept)]),
            Instruction::TakeAlong {
                rows, count, taken, ..
            } => kernel(
                "take-along",
                vec![rows_of(rows, count), set("taken", taken)],
            ),
            Instruction::PutAlong {
                rows, count, taken, ..
            } => kernel("put-along", vec![rows_of(rows, count), set("taken", taken)]),
            Instruction::Unwindow {
                outer,
                windows,
                size,
                stride,
                dilation,
                extent,
                inner,
                ..
            } => kernel(
                "unwindow",
                vec![
                    set(
                        "outer x windows x size x inner",
                        format_args!("{outer} x {windows} x {size} x {inner}"),
                    ),
                    set("extent", extent),
                    set("stride", stride),
                    set("dilation", dilation),
                ],
            ),
            Instruction::Unpack {
                rows, count, bits, ..
            } => kernel("unpack", vec![rows_of(rows, count), set("bits", bits)]),
            Instruction::Attention(ref of) => kernel("attention", attention_described(of)),
            Instruction::AttentionSlope { ref of, .. } => {
                kernel("attention-slope", attention_described(of))
            }
            Instruction::Zero { elements, .. } => kernel("zero", vec![set("elements", elements)]),
            Instruction::CopyRows { rows, width, .. } => {
                let name = values.last().map_or("copy-rows".to_owned(), |value| {
                    match &self.program.ir.value(*value).operation {
                        Operation::Map(_) => "copy-rows".to_owned(),
                        _ => format!("copy-rows of {}", described(self.program, *value).0),
                    }
                });
                kernel(&name, vec![rows_of(rows, width)])
            }
        }
    }

    /// The steps of a fused loop, with its registers.
    fn steps(&self, program: &MapProgram) -> Vec<String> {
        let stretch = |index: u16| {
            self.stretch(&Access::new(
                program.dense[index as usize],
                program.elements,
            ))
        };
        let mut steps = Vec::new();
        for (register, splat) in &program.splats {
            let what = match splat {
                Splat::Number(number) => number.to_string(),
                Splat::Element(place) => self.stretch(&Access::new(*place, 1)),
            };
            steps.push(format!("r{register} = repeat {what}"));
        }
        for Load {
            register,
            place,
            axes,
        } in &program.loads
        {
            let extents: Vec<String> = axes.iter().map(|axis| axis.extent.to_string()).collect();
            let strides: Vec<String> = axes.iter().map(|axis| axis.stride.to_string()).collect();
            steps.push(format!(
                "r{register} = load {} {{extents = {}, strides = {}}}",
                self.start(*place),
                extents.join(" x "),
                strides.join(" x ")
            ));
        }
        for step in &program.steps {
            let (name, attributes) = map_described(step.map);
            let count = step.map.operands();
            let operands: Vec<String> = step.operands[..count]
                .iter()
                .map(|source| match source {
                    Source::Register(register) => format!("r{register}"),
                    Source::Dense(index) => stretch(*index),
                })
                .collect();
            let target = match step.target {
                Target::Register(register) => format!("r{register}"),
                Target::Dense(index) => stretch(index),
            };
            let attributes: Vec<String> = attributes
                .into_iter()
                .map(|(word, value)| format!("{word} = {}", value.unwrap_or_default()))
                .collect();
            let attributes = if attributes.is_empty() {
                String::new()
            } else {
                format!(" {{{}}}", attributes.join(", "))
            };
            steps.push(format!(
                "{target} = {name} {}{attributes}",
                operands.join(", ")
            ));
        }
        for (register, index) in &program.stores {
            steps.push(format!("{} = store r{register}", stretch(*index)));
        }
        steps
    }

    /// A stretch of memory: `slab[0..128]`, `weights "bias"`.
    fn stretch(&self, access: &Access) -> String {
        let Access { place, elements } = *access;
        let whole = |name: String, offset: usize, size: Option<usize>| {
            if offset == 0 && size.is_none_or(|size| size == elements) {
                name
            } else {
                format!("{name}[{offset}..{}]", offset + elements)
            }
        };
        match place.region {
            Region::Slab => whole_range("slab", place.offset, elements),
            Region::Shared => whole_range("shared", place.offset, elements),
            Region::Weights | Region::Gradients => {
                let layout = &self.program.layout.parameters;
                let found = layout
                    .iter()
                    .zip(self.program.parameters())
                    .filter(|(offset, _)| **offset <= place.offset)
                    .max_by_key(|(offset, _)| **offset);
                let Some((start, parameter)) = found else {
                    return whole_range("weights", place.offset, elements);
                };
                let name = if place.region == Region::Weights {
                    quoted(&parameter.name)
                } else {
                    format!("gradient {}", quoted(&parameter.name))
                };
                whole(name, place.offset - start, Some(parameter.elements()))
            }
            Region::Literals => {
                let layout = &self.program.layout.literal_offsets;
                let index = layout.iter().rposition(|offset| *offset <= place.offset);
                let nodes = self.program.graph().nodes.iter().enumerate();
                let mut literals = nodes.filter(|(_, node)| {
                    matches!(node, Node::F32Constant(_) | Node::I32Constant(_))
                });
                match index.and_then(|index| Some((layout[index], literals.nth(index)?))) {
                    Some((start, (node, literal))) => {
                        let size = match literal {
                            Node::F32Constant(literal) => literal.values.len(),
                            Node::I32Constant(literal) => literal.values.len(),
                            _ => 0,
                        };
                        let name = format!("constant of node {node}");
                        whole(name, place.offset - start, Some(size))
                    }
                    None => whole_range("constants", place.offset, elements),
                }
            }
            Region::Input(index) => {
                let input = &self.program.inputs[index as usize];
                whole(
                    format!("{} {}", short(input.dtype), quoted(&input.name)),
                    place.offset,
                    None,
                )
            }
            Region::Output(index) => {
                let name = self.names.get(index as usize);
                let name = name.map_or_else(|| index.to_string(), |name| quoted(name));
                whole(format!("result {name}"), place.offset, None)
            }
        }
    }

    /// Where something begins.
    fn start(&self, place: Place) -> String {
        let text = self.stretch(&Access::new(place, 0));
        match text.split_once("..") {
            Some((start, _)) => format!("{start}..]"),
            None => text,
        }
    }
}

fn attention_described(of: &Attention) -> Vec<(String, Option<String>)> {
    let Attention {
        batch,
        time,
        heads,
        key_heads,
        width,
        ..
    } = of;
    let mut attributes = vec![
        set("batch x time", format_args!("{batch} x {time}")),
        set("heads", format_args!("{heads} x {width}")),
    ];
    if key_heads != heads {
        attributes.push(set("key heads", key_heads));
    }
    attributes.extend(attention(of.causal, of.scale));
    attributes
}

fn whole_range(name: &str, offset: usize, elements: usize) -> String {
    format!("{name}[{offset}..{}]", offset + elements)
}

/// The instructions that wrote what is read, the latest ones that did.
fn makers(read: &Access, written: &[Accesses]) -> Vec<usize> {
    let mut makers = Vec::new();
    if read.elements == 0 {
        return makers;
    }
    for (index, accesses) in written.iter().enumerate().rev() {
        let mut writes = accesses.writes.iter();
        if writes.clone().any(|write| write.overlaps(read)) {
            makers.push(index);
        }
        if writes.any(|write| write.covers(read)) {
            break;
        }
    }
    makers.reverse();
    makers
}
