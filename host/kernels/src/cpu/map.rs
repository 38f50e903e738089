//! Maps, block by block: a program's steps run over one block of elements after the other, so
//! that what lies between two steps stays in the nearest cache.

use super::level::for_each_level;
use super::math;
use super::memory::Memory;
use super::vector::prefetch;
use crate::graph::{BinaryOperation, Comparison, DType, UnaryOperation};
use crate::ir::Map;
use crate::plan::{ALIGNMENT, Load, MapProgram, MapStep, Source, Splat, Target};
use crate::random::{GROUP, Purpose, Stream};

/// Elements of a block.
pub(crate) const BLOCK: usize = 512;

/// Which rows a run is about, and what random draws depend on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Piece {
    pub(crate) seed: u64,
    pub(crate) step: u64,
    /// The first row of this piece in its batch.
    pub(crate) first_row: usize,
    /// Rows of this piece.
    pub(crate) rows: usize,
}

for_each_level! {
    /// Runs a program over elements `start..end` of its shape.
    pub(crate) fn run_map => run_map_body(
        program: &MapProgram,
        memory: &Memory<'_>,
        piece: Piece,
        start: usize,
        end: usize,
    )
}

#[inline(always)]
fn run_map_body<const FUSED: bool>(
    program: &MapProgram,
    memory: &Memory<'_>,
    piece: Piece,
    start: usize,
    end: usize,
) {
    if start >= end {
        return;
    }
    let longest = (end - start).min(BLOCK);
    for (register, splat) in &program.splats {
        let value = match splat {
            Splat::Number(value) => *value,
            // SAFETY: inside its span; written by an earlier instruction only.
            Splat::Element(place) => unsafe { *memory.at(*place, 1) },
        };
        // SAFETY: registers belong to this run, and no other slice of one is alive.
        unsafe { register_mut(memory, *register, longest) }.fill(value);
    }
    let mut first = start;
    while first < end {
        let count = (end - first).min(BLOCK);
        for step in &program.steps {
            if let Target::Dense(dense) = step.target {
                // Where nothing was yet is often far: the next block's place is asked for.
                let block = memory.at(program.dense[dense as usize], first + count);
                let next = block.wrapping_add(first + count);
                for line in (0..BLOCK).step_by(ALIGNMENT) {
                    prefetch(next.wrapping_add(line));
                }
            }
        }
        let loads = program.loads.iter();
        for load in loads.filter(|load| first == start || !repeats(load)) {
            // SAFETY: as above.
            gather(load, memory, first, unsafe {
                register_mut(memory, load.register, count)
            });
        }
        let mut steps = program.steps.as_slice();
        while let [step, rest @ ..] = steps {
            steps = match rest {
                [next, rest @ ..] if are_gelu_and_slope(step, next) => {
                    run_gelu_and_slope::<FUSED>([step, next], program, memory, first, count);
                    rest
                }
                _ => {
                    run_step::<FUSED>(step, program, memory, piece, first, count);
                    rest
                }
            };
        }
        for (register, dense) in &program.stores {
            // SAFETY: the plan lets a store share its place only with operands at the same
            // position, which this block has read.
            unsafe {
                let from = memory.register(*register, count);
                let to = memory
                    .at(program.dense[*dense as usize], first + count)
                    .add(first);
                std::ptr::copy_nonoverlapping(from, to, count);
            }
        }
        first += count;
    }
}

/// # Safety
/// No other slice of the register is alive.
#[inline(always)]
#[expect(
    clippy::mut_from_ref,
    reason = "a run writes through its shared description"
)]
unsafe fn register_mut<'a>(memory: &'a Memory<'_>, register: u16, count: usize) -> &'a mut [f32] {
    // SAFETY: inside the span of registers, and the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(memory.register(register, count), count) }
}

/// Whether every block that begins a whole number of blocks after another has the same elements: a
/// row that is repeated, like the scale of a norm.
fn repeats(load: &Load) -> bool {
    match load.axes.as_slice() {
        [outer, inner] => outer.stride == 0 && BLOCK.is_multiple_of(inner.extent),
        _ => false,
    }
}

/// Fills a block with elements that do not lie one after the other.
#[inline(always)]
fn gather(load: &Load, memory: &Memory<'_>, first: usize, block: &mut [f32]) {
    let reach: usize = load
        .axes
        .iter()
        .map(|axis| axis.extent.saturating_sub(1) * axis.stride)
        .sum();
    let from: *const f32 = memory.at(load.place, reach + 1);
    let Some((inner, outer)) = load.axes.split_last() else {
        return;
    };
    let mut done = 0;
    while done < block.len() {
        let position = first + done;
        let within = position % inner.extent;
        let mut rest = position / inner.extent;
        let mut offset = within * inner.stride;
        for axis in outer.iter().rev() {
            offset += rest % axis.extent * axis.stride;
            rest /= axis.extent;
        }
        let run = (inner.extent - within).min(block.len() - done);
        let part = &mut block[done..done + run];
        // SAFETY: an element of the view is at most `reach` from its start.
        unsafe {
            let from = from.add(offset);
            match inner.stride {
                0 => part.fill(*from),
                1 => part.copy_from_slice(std::slice::from_raw_parts(from, run)),
                stride => {
                    for (index, value) in part.iter_mut().enumerate() {
                        *value = *from.add(index * stride);
                    }
                }
            }
        }
        done += run;
    }
}

/// The block of an operand.
///
/// # Safety
/// Nothing writes it while the slice is alive.
#[inline(always)]
unsafe fn operand<'a>(
    source: Source,
    program: &MapProgram,
    memory: &'a Memory<'_>,
    first: usize,
    count: usize,
) -> &'a [f32] {
    let from = match source {
        Source::Register(register) => memory.register(register, count),
        Source::Dense(dense) => {
            // SAFETY: inside the span.
            unsafe {
                memory
                    .at(program.dense[dense as usize], first + count)
                    .add(first)
            }
        }
    };
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(from, count) }
}

/// The block of a result.
///
/// # Safety
/// Nothing else reads or writes it while the slice is alive.
#[inline(always)]
#[expect(
    clippy::mut_from_ref,
    reason = "a run writes through its shared description"
)]
unsafe fn result<'a>(
    target: Target,
    program: &MapProgram,
    memory: &'a Memory<'_>,
    first: usize,
    count: usize,
) -> &'a mut [f32] {
    let to = match target {
        Target::Register(register) => memory.register(register, count),
        Target::Dense(dense) => {
            // SAFETY: inside the span.
            unsafe {
                memory
                    .at(program.dense[dense as usize], first + count)
                    .add(first)
            }
        }
    };
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(to, count) }
}

/// Whether two steps are gelu and its derivative at the same operand, as in the forward half of a
/// training: they have most of their work in common.
fn are_gelu_and_slope(step: &MapStep, next: &MapStep) -> bool {
    step.map == Map::Unary(UnaryOperation::Gelu)
        && next.map == Map::GeluSlope
        && step.operands[0] == next.operands[0]
        && step.target != next.target
}

#[inline(always)]
fn run_gelu_and_slope<const FUSED: bool>(
    steps: [&MapStep; 2],
    program: &MapProgram,
    memory: &Memory<'_>,
    first: usize,
    count: usize,
) {
    // SAFETY: as of each step by itself; the targets are two, and the operand of both is neither.
    let (a, [out, slope]) = unsafe {
        (
            operand(steps[0].operands[0], program, memory, first, count),
            steps.map(|step| result(step.target, program, memory, first, count)),
        )
    };
    for ((out, slope), a) in out.iter_mut().zip(slope).zip(a) {
        (*out, *slope) = math::gelu_and_slope::<FUSED>(*a);
    }
}

#[inline(always)]
fn run_step<const FUSED: bool>(
    step: &MapStep,
    program: &MapProgram,
    memory: &Memory<'_>,
    piece: Piece,
    first: usize,
    count: usize,
) {
    // SAFETY: nothing writes an operand during the step: the target is a register that no operand
    // has, or memory that nothing else of the program has.
    let (out, [a, b, c]) = unsafe {
        (
            result(step.target, program, memory, first, count),
            step.operands
                .map(|source| operand(source, program, memory, first, count)),
        )
    };
    if let Map::Dropout { node, rate } = step.map {
        let base = piece.first_row as u64 * step.row_elements as u64;
        let stream = Stream::new(piece.seed, Purpose::Dropout, node, piece.step);
        drop_out(a, out, stream, rate.value(), base + first as u64);
    } else {
        apply::<FUSED>(step.map, a, b, c, out);
    }
}

/// Keeps an element where its number is at least `rate` of the way, scaled so that the mean
/// stays.
#[inline(always)]
fn drop_out(a: &[f32], out: &mut [f32], stream: Stream, rate: f32, first: u64) {
    let limit = (f64::from(rate) * 4_294_967_296.0) as u32;
    let scale = 1.0 / (1.0 - rate);
    let mut done = 0;
    while done < a.len() {
        let position = first + done as u64;
        let within = (position % GROUP as u64) as usize;
        let numbers = stream.group(position / GROUP as u64);
        let run = (GROUP - within).min(a.len() - done);
        let part = out[done..done + run].iter_mut().zip(&a[done..done + run]);
        for ((out, a), number) in part.zip(&numbers[within..within + run]) {
            *out = if *number >= limit { a * scale } else { 0.0 };
        }
        done += run;
    }
}

fn ints(values: &[f32]) -> &[i32] {
    // SAFETY: both types are four bytes, aligned alike, and take any bits.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

fn ints_mut(values: &mut [f32]) -> &mut [i32] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

#[inline(always)]
fn one<A: Copy, R>(out: &mut [R], a: &[A], f: impl Fn(A) -> R) {
    for (out, a) in out.iter_mut().zip(a) {
        *out = f(*a);
    }
}

#[inline(always)]
fn two<A: Copy, B: Copy, R>(out: &mut [R], a: &[A], b: &[B], f: impl Fn(A, B) -> R) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = f(*a, *b);
    }
}

#[inline(always)]
fn apply<const FUSED: bool>(map: Map, a: &[f32], b: &[f32], c: &[f32], out: &mut [f32]) {
    match map {
        Map::Copy => out.copy_from_slice(a),
        Map::Unary(operation) => unary::<FUSED>(operation, a, out),
        Map::UnaryInt(operation) => unary_int(operation, ints(a), ints_mut(out)),
        Map::GeluSlope => one(out, a, math::gelu_slope::<FUSED>),
        Map::Binary(operation) => binary(operation, a, b, out),
        Map::BinaryInt(operation) => binary_int(operation, ints(a), ints(b), ints_mut(out)),
        Map::Compare(comparison) => compare(comparison, a, b, out),
        Map::CompareInt(comparison) => compare(comparison, ints(a), ints(b), out),
        Map::Select(DType::Float32) => {
            for (((out, condition), yes), no) in out.iter_mut().zip(a).zip(b).zip(c) {
                *out = if *condition != 0.0 { *yes } else { *no };
            }
        }
        Map::Select(DType::Int32) => {
            for (((out, condition), yes), no) in out.iter_mut().zip(ints(a)).zip(b).zip(c) {
                *out = if *condition != 0 { *yes } else { *no };
            }
        }
        Map::ToInt => one(ints_mut(out), a, |x| x as i32),
        Map::ToFloat => one(out, ints(a), |x| x as f32),
        Map::Clamp { minimum, maximum } => {
            let (minimum, maximum) = (minimum.value(), maximum.value());
            one(out, a, |x| {
                let x = if x < minimum { minimum } else { x };
                if x > maximum { maximum } else { x }
            });
        }
        Map::WherePositive => two(out, a, b, |x, slope| if x > 0.0 { slope } else { 0.0 }),
        // Done by the caller, which knows positions.
        Map::Dropout { .. } => {}
        Map::BinaryCrossEntropy => two(out, a, b, |x, t| math::softplus::<FUSED>(x) - x * t),
        Map::Huber { delta } => {
            let delta = delta.value();
            two(out, a, b, |p, t| {
                let size = (p - t).abs();
                let quadratic = 0.5 * size * size;
                let linear = delta * (size - 0.5 * delta);
                if size <= delta { quadratic } else { linear }
            });
        }
        Map::HuberSlope { delta } => {
            let delta = delta.value();
            two(out, a, b, |p, t| {
                let difference = p - t;
                let difference = if difference < -delta {
                    -delta
                } else {
                    difference
                };
                if difference > delta {
                    delta
                } else {
                    difference
                }
            });
        }
    }
}

#[inline(always)]
fn truth(value: bool) -> f32 {
    if value { 1.0 } else { 0.0 }
}

#[inline(always)]
fn unary<const FUSED: bool>(operation: UnaryOperation, a: &[f32], out: &mut [f32]) {
    match operation {
        UnaryOperation::Negate => one(out, a, |x: f32| -x),
        UnaryOperation::Absolute => one(out, a, f32::abs),
        UnaryOperation::Exponential => one(out, a, math::exponential::<FUSED>),
        UnaryOperation::Logarithm => one(out, a, math::logarithm::<FUSED>),
        UnaryOperation::SquareRoot => one(out, a, f32::sqrt),
        UnaryOperation::Square => one(out, a, |x| x * x),
        UnaryOperation::Reciprocal => one(out, a, |x| 1.0 / x),
        UnaryOperation::Tanh => one(out, a, math::tanh::<FUSED>),
        UnaryOperation::Logistic => one(out, a, math::logistic::<FUSED>),
        UnaryOperation::Relu => one(out, a, |x| if x < 0.0 { 0.0 } else { x }),
        UnaryOperation::Gelu => one(out, a, math::gelu::<FUSED>),
        UnaryOperation::Silu => one(out, a, math::silu::<FUSED>),
        UnaryOperation::Softplus => one(out, a, math::softplus::<FUSED>),
        UnaryOperation::Floor => one(out, a, math::floor),
        UnaryOperation::Sign => one(out, a, math::sign),
        UnaryOperation::IsNan => one(out, a, |x: f32| truth(x.is_nan())),
        UnaryOperation::LogicalNot => one(out, a, |x| truth(x == 0.0)),
        UnaryOperation::Sine => circular(a, out, math::sine, math::sine_of_large),
        UnaryOperation::Cosine => circular(a, out, math::cosine, math::cosine_of_large),
        UnaryOperation::Tangent => circular(a, out, math::tangent, math::tangent_of_large),
        UnaryOperation::Round => one(out, a, math::round),
        UnaryOperation::Ceiling => one(out, a, |x: f32| -math::floor(-x)),
        UnaryOperation::ErrorFunction => one(out, a, math::error_function::<FUSED>),
        UnaryOperation::ExponentialMinusOne => {
            one(out, a, math::exponential_minus_one::<FUSED>);
        }
        UnaryOperation::LogPlusOne => one(out, a, math::log_plus_one::<FUSED>),
        UnaryOperation::CubeRoot => one(out, a, math::cube_root),
        UnaryOperation::ReciprocalSquareRoot => one(out, a, |x: f32| 1.0 / x.sqrt()),
        UnaryOperation::IsFinite => one(out, a, |x: f32| truth(x.is_finite())),
    }
}

/// A function of an angle: first as if all were moderate, then the large ones.
#[inline(always)]
fn circular(a: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32, large: fn(f32) -> f32) {
    one(out, a, f);
    for (out, x) in out.iter_mut().zip(a) {
        if x.abs() > math::MODERATE_ANGLE {
            *out = large(*x);
        }
    }
}

#[inline(always)]
fn unary_int(operation: UnaryOperation, a: &[i32], out: &mut [i32]) {
    match operation {
        UnaryOperation::Negate => one(out, a, i32::wrapping_neg),
        UnaryOperation::Absolute => one(out, a, i32::wrapping_abs),
        UnaryOperation::Square => one(out, a, |x: i32| x.wrapping_mul(x)),
        UnaryOperation::Relu => one(out, a, |x: i32| x.max(0)),
        UnaryOperation::Sign => one(out, a, i32::signum),
        UnaryOperation::LogicalNot => one(out, a, |x| i32::from(x == 0)),
        // The check lets no other take int32.
        _ => out.copy_from_slice(a),
    }
}

#[inline(always)]
fn binary(operation: BinaryOperation, a: &[f32], b: &[f32], out: &mut [f32]) {
    match operation {
        BinaryOperation::Add => two(out, a, b, |x, y| x + y),
        BinaryOperation::Subtract => two(out, a, b, |x, y| x - y),
        BinaryOperation::Multiply => two(out, a, b, |x, y| x * y),
        BinaryOperation::Divide => two(out, a, b, |x, y| x / y),
        BinaryOperation::Maximum => {
            two(
                out,
                a,
                b,
                |x: f32, y| if x > y || x.is_nan() { x } else { y },
            );
        }
        BinaryOperation::Minimum => {
            two(
                out,
                a,
                b,
                |x: f32, y| if x < y || x.is_nan() { x } else { y },
            );
        }
        BinaryOperation::Power => two(out, a, b, math::power),
        BinaryOperation::LogicalAnd => two(out, a, b, |x, y| truth(x != 0.0 && y != 0.0)),
        BinaryOperation::LogicalOr => two(out, a, b, |x, y| truth(x != 0.0 || y != 0.0)),
    }
}

#[inline(always)]
fn binary_int(operation: BinaryOperation, a: &[i32], b: &[i32], out: &mut [i32]) {
    match operation {
        BinaryOperation::Add => two(out, a, b, i32::wrapping_add),
        BinaryOperation::Subtract => two(out, a, b, i32::wrapping_sub),
        BinaryOperation::Multiply => two(out, a, b, i32::wrapping_mul),
        BinaryOperation::Divide => {
            two(
                out,
                a,
                b,
                |x: i32, y| if y == 0 { -1 } else { x.wrapping_div(y) },
            );
        }
        BinaryOperation::Maximum => two(out, a, b, i32::max),
        BinaryOperation::Minimum => two(out, a, b, i32::min),
        BinaryOperation::LogicalAnd => two(out, a, b, |x, y| i32::from(x != 0 && y != 0)),
        BinaryOperation::LogicalOr => two(out, a, b, |x, y| i32::from(x != 0 || y != 0)),
        // The check lets no power take int32.
        BinaryOperation::Power => out.copy_from_slice(a),
    }
}

#[inline(always)]
fn compare<T: Copy + PartialOrd>(comparison: Comparison, a: &[T], b: &[T], out: &mut [f32]) {
    match comparison {
        Comparison::Equal => two(out, a, b, |x, y| truth(x == y)),
        Comparison::NotEqual => two(out, a, b, |x, y| truth(x != y)),
        Comparison::Less => two(out, a, b, |x, y| truth(x < y)),
        Comparison::LessOrEqual => two(out, a, b, |x, y| truth(x <= y)),
        Comparison::Greater => two(out, a, b, |x, y| truth(x > y)),
        Comparison::GreaterOrEqual => two(out, a, b, |x, y| truth(x >= y)),
    }
}
