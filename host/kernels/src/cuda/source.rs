//! Kernels as text: the templates of this folder, and a kernel for each map program.
//!
//! A map program becomes one loop over its elements: what is read element by element in fours,
//! everything between in registers. Extents and strides inside it are written into the text, the
//! number of elements is not, so that one text serves every number of rows.

use std::fmt::Write;

use super::driver::Unit;
use crate::graph::{BinaryOperation, Comparison, DType, UnaryOperation};
use crate::ir::{Bits, Map};
use crate::plan::{Load, MapProgram, Place, Source, Splat, Target};

const PRELUDE: &str = include_str!("templates/prelude.cu");
const ROWS: &str = include_str!("templates/rows.cu");
const LOOKUP: &str = include_str!("templates/lookup.cu");
const UPDATE: &str = include_str!("templates/update.cu");
const MULTIPLY: &str = include_str!("templates/multiply.cu");
const ATTENTION: &str = include_str!("templates/attention.cu");

/// Which template a kernel comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    Rows,
    Lookup,
    Update,
    Multiply,
    Attention,
    Map,
}

/// A kernel by name, and the text that makes it of its family's template; none where the
/// template has it already.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct KernelText {
    pub(super) family: Family,
    pub(super) name: String,
    pub(super) text: String,
}

impl KernelText {
    /// A kernel that its template has already.
    pub(super) fn ready(family: Family, name: &str) -> KernelText {
        KernelText {
            family,
            name: name.to_owned(),
            text: String::new(),
        }
    }
}

/// The text of a family with these kernels.
pub(super) fn unit_text(family: Family, kernels: &[&KernelText]) -> String {
    let template = match family {
        Family::Rows => ROWS,
        Family::Lookup => LOOKUP,
        Family::Update => UPDATE,
        Family::Multiply => MULTIPLY,
        Family::Attention => ATTENTION,
        Family::Map => "",
    };
    let mut text = format!("{PRELUDE}\n{template}\n");
    for (index, kernel) in kernels.iter().enumerate() {
        // One text may make several kernels.
        if kernels[..index].iter().all(|one| one.text != kernel.text) {
            text.push_str(&kernel.text);
        }
    }
    text
}

/// Threads of a block where nothing else is said.
pub(super) const THREADS: u32 = 256;

/// The tile of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tile {
    Large,
    Middle,
    Flat,
}

impl Tile {
    /// Rows and columns.
    pub(super) fn extents(self) -> [usize; 2] {
        match self {
            Tile::Large => [128, 128],
            Tile::Middle => [64, 64],
            Tile::Flat => [16, 64],
        }
    }
}

/// A product by tile, and by whether the left operand lies one after the other along the inner
/// axis and the right one along the columns.
pub(super) fn multiply(tile: Tile, left_inner: bool, right_columns: bool) -> KernelText {
    let (name, tile) = match tile {
        Tile::Large => ("large", "128, 128, 8, 8, 8"),
        Tile::Middle => ("middle", "64, 64, 16, 4, 4"),
        Tile::Flat => ("flat", "16, 64, 16, 2, 2"),
    };
    let sides = match (left_inner, right_columns) {
        (true, true) => "nn",
        (true, false) => "nt",
        (false, true) => "tn",
        (false, false) => "tt",
    };
    KernelText {
        family: Family::Multiply,
        name: format!("multiply_{name}_{sides}"),
        text: format!("MULTIPLY({name}_{sides}, {tile}, {left_inner}, {right_columns})\n"),
    }
}

/// The kernels of attention for heads of one width, and their tiles.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) forward: KernelText,
    /// Against keys and values in pages.
    pub(super) kept: KernelText,
    pub(super) slope_q: KernelText,
    pub(super) slope_kv: KernelText,
    /// Rows of a block: keys in the last, queries in the others. Four threads for each.
    pub(super) tile: u32,
}

/// Attention for heads of this width; none where there is no kernel for it.
pub(super) fn attention(width: usize) -> Option<Attention> {
    // What a block holds must fit in 48 KiB.
    let tile = match width {
        1..=64 => 32,
        65..=128 => 16,
        129..=256 => 8,
        _ => return None,
    };
    let text = |name: &str| KernelText {
        family: Family::Attention,
        name: format!("{name}_{width}"),
        text: format!("ATTENTION({width}, {tile}, {tile})\n"),
    };
    Some(Attention {
        forward: text("attention"),
        kept: text("attention_kept"),
        slope_q: text("attention_slope_q"),
        slope_kv: text("attention_slope_kv"),
        tile,
    })
}

/// Everything that templates have, as units to be compiled.
pub(super) fn templates() -> Vec<Unit> {
    let mut units = Vec::new();
    for family in [Family::Rows, Family::Lookup, Family::Update] {
        let source = unit_text(family, &[]);
        units.push(Unit {
            names: kernel_names(&source),
            source,
        });
    }
    for tile in [Tile::Large, Tile::Middle, Tile::Flat] {
        for (left, right) in [(true, true), (true, false), (false, true), (false, false)] {
            let kernel = multiply(tile, left, right);
            units.push(Unit {
                source: unit_text(Family::Multiply, &[&kernel]),
                names: vec![kernel.name],
            });
        }
    }
    let widths = [5, 16, 32, 64, 80, 96, 128, 256];
    units.extend(widths.into_iter().filter_map(attention_unit));
    units
}

/// All kernels of attention for heads of this width.
pub(super) fn attention_unit(width: usize) -> Option<Unit> {
    let of = attention(width)?;
    let kernels = [of.forward, of.kept, of.slope_q, of.slope_kv];
    let mut names: Vec<String> = kernels.iter().map(|one| one.name.clone()).collect();
    names.extend(["attention_deltas".to_owned(), "keep_positions".to_owned()]);
    Some(Unit {
        source: unit_text(Family::Attention, &[&kernels[0]]),
        names,
    })
}

/// The kernels that a text defines, those of `ROWS` included.
fn kernel_names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in source.lines() {
        let Some(rest) = line.trim_start().strip_prefix("KERNEL ") else {
            continue;
        };
        let Some((name, _)) = rest.split_once('(') else {
            continue;
        };
        match name.strip_suffix("##THREADS") {
            Some(name) => names.extend(["32", "256"].map(|threads| format!("{name}{threads}"))),
            None => names.push(name.to_owned()),
        }
    }
    names
}

/// The kernel of a map program, and the places whose addresses it takes after the number of
/// elements and the numbers of the run.
pub(super) fn map(program: &MapProgram) -> (KernelText, Vec<(Place, usize)>) {
    let mut places: Vec<(Place, usize)> = program
        .dense
        .iter()
        .map(|place| (*place, program.elements))
        .collect();
    let aligned = program.dense.iter().all(|place| place.offset % 4 == 0);
    let mut loads = Vec::new();
    for load in &program.loads {
        loads.push(places.len());
        let reach = load
            .axes
            .iter()
            .map(|axis| axis.extent.saturating_sub(1) * axis.stride)
            .sum::<usize>();
        places.push((load.place, reach + 1));
    }
    let mut outside = String::new();
    for (register, splat) in &program.splats {
        let value = match splat {
            Splat::Number(value) => number(Bits::from(*value)),
            Splat::Element(place) => {
                places.push((*place, 1));
                format!("p{}[0]", places.len() - 1)
            }
        };
        let _ = writeln!(outside, "    const float r{register} = {value};");
    }
    // What steps or the last stores write, and what is read from memory.
    let mut written = vec![false; program.dense.len()];
    let mut read = vec![false; program.dense.len()];
    for step in &program.steps {
        for source in &step.operands {
            if let Source::Dense(dense) = source {
                read[*dense as usize] |= !written[*dense as usize];
            }
        }
        if let Target::Dense(dense) = step.target {
            written[dense as usize] = true;
        }
    }
    let direct = written.clone();
    for (_, dense) in &program.stores {
        written[*dense as usize] = true;
    }
    let mut body = String::new();
    let splats: Vec<u16> = program
        .splats
        .iter()
        .map(|(register, _)| *register)
        .collect();
    let own = (0..program.registers).filter(|register| !splats.contains(register));
    for register in own {
        let _ = writeln!(body, "            float r{register} = 0.0f;");
    }
    for (load, pointer) in program.loads.iter().zip(&loads) {
        write_load(&mut body, load, *pointer);
    }
    for step in &program.steps {
        let operand = |source: Source| match source {
            Source::Register(register) => format!("r{register}"),
            Source::Dense(dense) => format!(
                "{}{dense}[l]",
                if direct[dense as usize] { 's' } else { 'd' }
            ),
        };
        let [a, b, c] = step.operands.map(operand);
        let value = expression(step.map, step.row_elements, &a, &b, &c);
        let target = match step.target {
            Target::Register(register) => format!("r{register}"),
            Target::Dense(dense) => format!("s{dense}[l]"),
        };
        let _ = writeln!(body, "            {target} = {value};");
    }
    for (register, dense) in &program.stores {
        let _ = writeln!(body, "            s{dense}[l] = r{register};");
    }
    let mut text = String::new();
    let parameters: Vec<String> = (0..places.len())
        .map(|place| format!("float* p{place}"))
        .collect();
    let _ = write!(
        text,
        "(u64 elements, const u64* run{}{}) {{\n{outside}",
        if parameters.is_empty() { "" } else { ", " },
        parameters.join(", ")
    );
    text.push_str(
        "    for (u64 base = ((u64)blockIdx.x * 256 + threadIdx.x) * 4; base < elements; base += (u64)gridDim.x * 1024) {\n        \
         u32 left = elements - base < 4 ? (u32)(elements - base) : 4;\n",
    );
    for (dense, read) in read.iter().enumerate() {
        if !read {
            continue;
        }
        let _ = writeln!(text, "        float d{dense}[4];");
        write_four(
            &mut text,
            aligned,
            &format!("load_four(d{dense}, p{dense} + base)"),
            &format!("d{dense}[l] = p{dense}[base + l]"),
        );
    }
    for (dense, written) in written.iter().enumerate() {
        if *written {
            let _ = writeln!(text, "        float s{dense}[4];");
        }
    }
    text.push_str("#pragma unroll\n        for (u32 l = 0; l < 4; l++) if (l < left) {\n");
    text.push_str("            u32 at = (u32)(base + l); (void)at;\n");
    text.push_str(&body);
    text.push_str("        }\n");
    for (dense, written) in written.iter().enumerate() {
        if *written {
            write_four(
                &mut text,
                aligned,
                &format!("store_four(p{dense} + base, s{dense})"),
                &format!("p{dense}[base + l] = s{dense}[l]"),
            );
        }
    }
    text.push_str("    }\n    (void)run;\n}\n");
    let digest = blake3::hash(text.as_bytes()).to_hex();
    let name = format!("map_{}", &digest.as_str()[..24]);
    let text = format!("KERNEL {name}{text}");
    let kernel = KernelText {
        family: Family::Map,
        name,
        text,
    };
    (kernel, places)
}

/// Four elements at once where they lie so, else one by one.
fn write_four(text: &mut String, aligned: bool, four: &str, one: &str) {
    let each = format!("for (u32 l = 0; l < left; l++) {one};");
    let _ = if aligned {
        writeln!(text, "        if (left == 4) {four}; else {each}")
    } else {
        writeln!(
            text,
            "#pragma unroll\n        for (u32 l = 0; l < 4; l++) if (l < left) {one};"
        )
    };
}

/// A register from elements that do not lie one after the other.
fn write_load(body: &mut String, load: &Load, pointer: usize) {
    let mut terms = Vec::new();
    let mut divided = 1_usize;
    for (depth, axis) in load.axes.iter().enumerate().rev() {
        let mut place = if divided == 1 {
            "at".to_owned()
        } else {
            format!("at / {divided}u")
        };
        if depth > 0 {
            place = format!("{place} % {}u", axis.extent);
        }
        if axis.stride > 0 {
            terms.push(format!("(u64)({place}) * {}u", axis.stride));
        }
        divided = divided.saturating_mul(axis.extent.max(1));
    }
    let offset = if terms.is_empty() {
        "0".to_owned()
    } else {
        terms.join(" + ")
    };
    let _ = writeln!(
        body,
        "            r{} = p{pointer}[{offset}];",
        load.register
    );
}

/// A float32 by its bits.
fn number(bits: Bits) -> String {
    format!("__uint_as_float(0x{:08x}u)", bits.value().to_bits())
}

/// What a map gives.
fn expression(map: Map, row_elements: usize, a: &str, b: &str, c: &str) -> String {
    let (ia, ib) = (
        format!("__float_as_int({a})"),
        format!("__float_as_int({b})"),
    );
    let int = |value: String| format!("__int_as_float({value})");
    let truth = |condition: String| format!("({condition}) ? 1.0f : 0.0f");
    match map {
        Map::Copy => a.to_owned(),
        Map::Unary(operation) => match operation {
            UnaryOperation::Negate => format!("-{a}"),
            UnaryOperation::Absolute => format!("fabsf({a})"),
            UnaryOperation::Exponential => format!("exponential({a})"),
            UnaryOperation::Logarithm => format!("logarithm({a})"),
            UnaryOperation::SquareRoot => format!("sqrtf({a})"),
            UnaryOperation::Square => format!("{a} * {a}"),
            UnaryOperation::Reciprocal => format!("1.0f / {a}"),
            UnaryOperation::Tanh => format!("hyperbolic_tangent({a})"),
            UnaryOperation::Logistic => format!("logistic({a})"),
            UnaryOperation::Relu => format!("{a} < 0.0f ? 0.0f : {a}"),
            UnaryOperation::Gelu => format!("gelu({a})"),
            UnaryOperation::Silu => format!("silu({a})"),
            UnaryOperation::Softplus => format!("softplus({a})"),
            UnaryOperation::Floor => format!("floorf({a})"),
            UnaryOperation::Sign => format!("sign_of({a})"),
            UnaryOperation::IsNan => truth(format!("not_a_number({a})")),
            UnaryOperation::Sine => format!("sine({a})"),
            UnaryOperation::Cosine => format!("cosine({a})"),
            UnaryOperation::Tangent => format!("tangent({a})"),
            UnaryOperation::Round => format!("round_to_even({a})"),
            UnaryOperation::Ceiling => format!("-floorf(-{a})"),
            UnaryOperation::ErrorFunction => format!("error_function({a})"),
            UnaryOperation::ExponentialMinusOne => format!("exponential_minus_one({a})"),
            UnaryOperation::LogPlusOne => format!("log_plus_one({a})"),
            UnaryOperation::CubeRoot => format!("cube_root({a})"),
            UnaryOperation::ReciprocalSquareRoot => format!("1.0f / sqrtf({a})"),
            UnaryOperation::IsFinite => truth(format!("is_finite({a})")),
            UnaryOperation::LogicalNot => truth(format!("{a} == 0.0f")),
        },
        Map::UnaryInt(operation) => match operation {
            UnaryOperation::Negate => int(format!("(int)(0u - (u32){ia})")),
            UnaryOperation::Absolute => int(format!("{ia} < 0 ? (int)(0u - (u32){ia}) : {ia}")),
            UnaryOperation::Square => int(format!("(int)((u32){ia} * (u32){ia})")),
            UnaryOperation::Relu => int(format!("{ia} > 0 ? {ia} : 0")),
            UnaryOperation::Sign => int(format!("({ia} > 0) - ({ia} < 0)")),
            UnaryOperation::LogicalNot => int(format!("{ia} == 0 ? 1 : 0")),
            // The check lets no other take int32.
            _ => a.to_owned(),
        },
        Map::GeluSlope => format!("gelu_slope({a})"),
        Map::Binary(operation) => match operation {
            BinaryOperation::Add => format!("{a} + {b}"),
            BinaryOperation::Subtract => format!("{a} - {b}"),
            BinaryOperation::Multiply => format!("{a} * {b}"),
            BinaryOperation::Divide => format!("{a} / {b}"),
            BinaryOperation::Maximum => format!("larger({a}, {b})"),
            BinaryOperation::Minimum => format!("smaller({a}, {b})"),
            BinaryOperation::Power => format!("power({a}, {b})"),
            BinaryOperation::LogicalAnd => truth(format!("{a} != 0.0f && {b} != 0.0f")),
            BinaryOperation::LogicalOr => truth(format!("{a} != 0.0f || {b} != 0.0f")),
        },
        Map::BinaryInt(operation) => match operation {
            BinaryOperation::Add => int(format!("(int)((u32){ia} + (u32){ib})")),
            BinaryOperation::Subtract => int(format!("(int)((u32){ia} - (u32){ib})")),
            BinaryOperation::Multiply => int(format!("(int)((u32){ia} * (u32){ib})")),
            BinaryOperation::Divide => int(format!("divide_int({ia}, {ib})")),
            BinaryOperation::Maximum => int(format!("{ia} > {ib} ? {ia} : {ib}")),
            BinaryOperation::Minimum => int(format!("{ia} < {ib} ? {ia} : {ib}")),
            BinaryOperation::LogicalAnd => int(format!("{ia} != 0 && {ib} != 0 ? 1 : 0")),
            BinaryOperation::LogicalOr => int(format!("{ia} != 0 || {ib} != 0 ? 1 : 0")),
            // The check lets no power take int32.
            BinaryOperation::Power => a.to_owned(),
        },
        Map::Compare(comparison) => truth(format!("{a} {} {b}", sign(comparison))),
        Map::CompareInt(comparison) => truth(format!("{ia} {} {ib}", sign(comparison))),
        Map::Select(DType::Float32) => format!("{a} != 0.0f ? {b} : {c}"),
        Map::Select(DType::Int32) => format!("{ia} != 0 ? {b} : {c}"),
        Map::ToInt => int(format!("__float2int_rz({a})")),
        Map::ToFloat => format!("__int2float_rn({ia})"),
        Map::Clamp { minimum, maximum } => {
            let (minimum, maximum) = (number(minimum), number(maximum));
            let above = format!("({a} < {minimum} ? {minimum} : {a})");
            format!("{above} > {maximum} ? {maximum} : {above}")
        }
        Map::WherePositive => format!("{a} > 0.0f ? {b} : 0.0f"),
        Map::Dropout { node, rate } => {
            let rate = rate.value();
            let limit = (f64::from(rate) * 4_294_967_296.0) as u32;
            let scale = number(Bits::from(1.0 / (1.0 - rate)));
            // Positions count from the first row of the step.
            let position = format!("run[2] * {row_elements}u + at");
            format!("drawn(run, {node}u, {position}) >= {limit}u ? {a} * {scale} : 0.0f")
        }
        Map::BinaryCrossEntropy => format!("softplus({a}) - {a} * {b}"),
        Map::Huber { delta } => {
            let delta = number(delta);
            let size = format!("fabsf({a} - {b})");
            format!(
                "{size} <= {delta} ? 0.5f * {size} * {size} : {delta} * ({size} - 0.5f * {delta})"
            )
        }
        Map::HuberSlope { delta } => {
            let delta = number(delta);
            let above = format!("({a} - {b} < -{delta} ? -{delta} : {a} - {b})");
            format!("{above} > {delta} ? {delta} : {above}")
        }
    }
}

fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "==",
        Comparison::NotEqual => "!=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}
