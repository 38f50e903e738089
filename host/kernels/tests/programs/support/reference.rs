//! What programs mean: every node by its definition, element by element, in float64. Slow and
//! plain, so that it can be read.

use std::collections::BTreeMap;

use sandcast_kernels::graph::*;
use sandcast_kernels::{Feeds, Tensor};

/// A tensor; int32 by its number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f64>,
}

impl Value {
    fn from_fn(shape: Vec<usize>, f: impl FnMut(&[usize]) -> f64) -> Value {
        let data = positions(&shape).iter().map(Vec::as_slice).map(f).collect();
        Value { shape, data }
    }

    /// The element at a position.
    pub(crate) fn at(&self, position: &[usize]) -> f64 {
        let mut index = 0;
        for (extent, place) in self.shape.iter().zip(position) {
            index = index * extent + place;
        }
        self.data[index]
    }

    fn at_mut(&mut self, position: &[usize]) -> &mut f64 {
        let mut index = 0;
        for (extent, place) in self.shape.iter().zip(position) {
            index = index * extent + place;
        }
        &mut self.data[index]
    }

    /// The element that broadcasts to a position of a larger shape.
    fn seen_at(&self, position: &[usize]) -> f64 {
        let own = &position[position.len() - self.shape.len()..];
        let own: Vec<usize> = own
            .iter()
            .zip(&self.shape)
            .map(|(place, extent)| if *extent == 1 { 0 } else { *place })
            .collect();
        self.at(&own)
    }
}

impl From<&Tensor> for Value {
    fn from(tensor: &Tensor) -> Value {
        let data = match tensor.as_i32() {
            Some(values) => values.iter().map(|value| f64::from(*value)).collect(),
            None => tensor.to_f32().into_iter().map(f64::from).collect(),
        };
        Value {
            shape: tensor.shape().to_vec(),
            data,
        }
    }
}

/// Every position of a shape in row-major order.
pub(crate) fn positions(shape: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for extent in shape {
        all = all
            .into_iter()
            .flat_map(|position: Vec<usize>| {
                (0..*extent).map(move |place| position.iter().copied().chain([place]).collect())
            })
            .collect();
    }
    all
}

/// Parameters by name.
pub(crate) type Parameters = BTreeMap<String, Value>;

/// The value of every node; dropout is off.
pub(crate) fn evaluate(graph: &Graph, parameters: &Parameters, feeds: &Feeds) -> Vec<Value> {
    let mut symbols = vec![0; graph.symbols.len()];
    for node in &graph.nodes {
        if let Node::Input(input) = node
            && let Some(tensor) = feeds.get(&input.name)
        {
            for (extent, given) in input.shape.iter().zip(tensor.shape()) {
                if let Extent::Symbol(symbol) = extent {
                    symbols[*symbol as usize] = *given;
                }
            }
        }
    }
    let mut values: Vec<Value> = Vec::new();
    for node in &graph.nodes {
        let value = Evaluation {
            symbols: &symbols,
            values: &values,
            parameters,
            feeds,
        }
        .node(node);
        values.push(value);
    }
    values
}

/// The weighted mean of the losses.
pub(crate) fn loss(graph: &Graph, parameters: &Parameters, feeds: &Feeds) -> f64 {
    let values = evaluate(graph, parameters, feeds);
    let loss = graph.loss.as_ref().expect("a graph with a loss");
    let losses = &values[loss.per_row as usize].data;
    let weights = match loss.weight {
        Some(weight) => values[weight as usize].data.clone(),
        None => vec![1.0; losses.len()],
    };
    let sum: f64 = losses
        .iter()
        .zip(&weights)
        .map(|(loss, weight)| loss * weight)
        .sum();
    sum / weights.iter().sum::<f64>()
}

/// The derivative of the loss by elements of a parameter, by central differences.
pub(crate) fn slope(
    graph: &Graph,
    parameters: &Parameters,
    feeds: &Feeds,
    name: &str,
    places: &[usize],
) -> Vec<f64> {
    // The error is of the order of the square.
    const STEP: f64 = 1e-5;
    let mut parameters = parameters.clone();
    places
        .iter()
        .map(|index| {
            let mut at = |offset: f64| {
                let value = parameters.get_mut(name).expect("a parameter");
                let before = value.data[*index];
                value.data[*index] = before + offset;
                let found = loss(graph, &parameters, feeds);
                parameters.get_mut(name).expect("a parameter").data[*index] = before;
                found
            };
            (at(STEP) - at(-STEP)) / (2.0 * STEP)
        })
        .collect()
}

struct Evaluation<'a> {
    symbols: &'a [usize],
    values: &'a [Value],
    parameters: &'a Parameters,
    feeds: &'a Feeds,
}

impl Evaluation<'_> {
    fn of(&self, id: NodeId) -> &Value {
        &self.values[id as usize]
    }

    fn resolve(&self, shape: &[Extent]) -> Vec<usize> {
        shape
            .iter()
            .map(|extent| match extent {
                Extent::Fixed(value) => *value as usize,
                Extent::Symbol(symbol) => self.symbols[*symbol as usize],
            })
            .collect()
    }

    fn each(&self, operands: &[NodeId], f: impl Fn(&[f64]) -> f64) -> Value {
        let operands: Vec<&Value> = operands.iter().map(|id| self.of(*id)).collect();
        let rank = operands
            .iter()
            .map(|operand| operand.shape.len())
            .max()
            .unwrap_or(0);
        let mut shape = vec![1; rank];
        for operand in &operands {
            let missing = rank - operand.shape.len();
            for (axis, extent) in operand.shape.iter().enumerate() {
                if *extent != 1 {
                    shape[missing + axis] = *extent;
                }
            }
        }
        Value::from_fn(shape, |position| {
            let seen: Vec<f64> = operands
                .iter()
                .map(|operand| operand.seen_at(position))
                .collect();
            f(&seen)
        })
    }

    fn node(&self, node: &Node) -> Value {
        let truth = |value: bool| if value { 1.0 } else { 0.0 };
        match node {
            Node::Input(input) => match self.feeds.get(&input.name) {
                Some(tensor) => Value::from(tensor),
                None => Value {
                    shape: vec![0],
                    data: vec![],
                },
            },
            Node::Parameter(parameter) => self.parameters[&parameter.name].clone(),
            Node::F32Constant(literal) => Value {
                shape: literal
                    .shape
                    .iter()
                    .map(|extent| *extent as usize)
                    .collect(),
                data: literal
                    .values
                    .iter()
                    .map(|value| f64::from(*value))
                    .collect(),
            },
            Node::I32Constant(literal) => Value {
                shape: literal
                    .shape
                    .iter()
                    .map(|extent| *extent as usize)
                    .collect(),
                data: literal
                    .values
                    .iter()
                    .map(|value| f64::from(*value))
                    .collect(),
            },
            Node::Unary(unary) => self.each(&[unary.operand], |x| apply(unary.operation, x[0])),
            Node::Binary(binary) => self.each(&[binary.left, binary.right], |x| {
                let (a, b) = (x[0], x[1]);
                match binary.operation {
                    BinaryOperation::Add => a + b,
                    BinaryOperation::Subtract => a - b,
                    BinaryOperation::Multiply => a * b,
                    BinaryOperation::Divide => a / b,
                    BinaryOperation::Maximum => a.max(b),
                    BinaryOperation::Minimum => a.min(b),
                    BinaryOperation::Power => a.powf(b),
                    BinaryOperation::LogicalAnd => truth(a != 0.0 && b != 0.0),
                    BinaryOperation::LogicalOr => truth(a != 0.0 || b != 0.0),
                }
            }),
            Node::Compare(compare) => self.each(&[compare.left, compare.right], |x| {
                truth(match compare.comparison {
                    Comparison::Equal => x[0] == x[1],
                    Comparison::NotEqual => x[0] != x[1],
                    Comparison::Less => x[0] < x[1],
                    Comparison::LessOrEqual => x[0] <= x[1],
                    Comparison::Greater => x[0] > x[1],
                    Comparison::GreaterOrEqual => x[0] >= x[1],
                })
            }),
            Node::Select(select) => {
                let operands = [select.condition, select.on_true, select.on_false];
                self.each(&operands, |x| if x[0] != 0.0 { x[1] } else { x[2] })
            }
            Node::Cast(cast) => self.each(&[cast.operand], |x| match cast.dtype {
                DType::Float32 => x[0],
                DType::Int32 => f64::from(x[0] as i32),
            }),
            Node::Clamp(clamp) => self.each(&[clamp.operand], |x| {
                x[0].max(f64::from(clamp.minimum))
                    .min(f64::from(clamp.maximum))
            }),
            Node::Reshape(reshape) => Value {
                shape: self.resolve(&reshape.shape),
                data: self.of(reshape.operand).data.clone(),
            },
            Node::Transpose(transpose) => {
                let operand = self.of(transpose.operand);
                let axes: Vec<usize> = transpose
                    .permutation
                    .iter()
                    .map(|axis| *axis as usize)
                    .collect();
                let shape = axes.iter().map(|axis| operand.shape[*axis]).collect();
                Value::from_fn(shape, |position| {
                    let mut from = vec![0; axes.len()];
                    for (place, axis) in axes.iter().enumerate() {
                        from[*axis] = position[place];
                    }
                    operand.at(&from)
                })
            }
            Node::Broadcast(broadcast) => {
                let operand = self.of(broadcast.operand);
                Value::from_fn(self.resolve(&broadcast.shape), |position| {
                    operand.seen_at(position)
                })
            }
            Node::Slice(slice) => {
                let operand = self.of(slice.operand);
                let mut shape = operand.shape.clone();
                shape[slice.axis as usize] = (slice.limit - slice.start) as usize;
                Value::from_fn(shape, |position| {
                    let mut from = position.to_vec();
                    from[slice.axis as usize] += slice.start as usize;
                    operand.at(&from)
                })
            }
            Node::Concatenate(concatenate) => {
                let operands: Vec<&Value> =
                    concatenate.operands.iter().map(|id| self.of(*id)).collect();
                let axis = concatenate.axis as usize;
                let mut shape = operands[0].shape.clone();
                shape[axis] = operands.iter().map(|operand| operand.shape[axis]).sum();
                Value::from_fn(shape, |position| {
                    let mut from = position.to_vec();
                    let mut which = 0;
                    while from[axis] >= operands[which].shape[axis] {
                        from[axis] -= operands[which].shape[axis];
                        which += 1;
                    }
                    operands[which].at(&from)
                })
            }
            Node::Reduce(reduce) => self.reduce(reduce),
            Node::Argmax(argmax) => self.along(argmax.operand, argmax.axis, |values| {
                let mut best = 0;
                for (place, value) in values.iter().enumerate() {
                    if *value > values[best] {
                        best = place;
                    }
                }
                best as f64
            }),
            Node::Softmax(softmax) => {
                let operand = self.of(softmax.operand);
                let largest = self.along(softmax.operand, softmax.axis, |x| {
                    x.iter().copied().fold(f64::MIN, f64::max)
                });
                let sum = self.along(softmax.operand, softmax.axis, |x| {
                    let largest = x.iter().copied().fold(f64::MIN, f64::max);
                    x.iter().map(|x| (x - largest).exp()).sum()
                });
                Value::from_fn(operand.shape.clone(), |position| {
                    let mut row = position.to_vec();
                    row.remove(softmax.axis as usize);
                    let logarithm = operand.at(position) - largest.at(&row) - sum.at(&row).ln();
                    if softmax.logarithm {
                        logarithm
                    } else {
                        logarithm.exp()
                    }
                })
            }
            Node::Matmul(matmul) => {
                let (left, right) = (self.of(matmul.left), self.of(matmul.right));
                let rank = left.shape.len();
                let mut shape = left.shape.clone();
                shape[rank - 1] = right.shape[right.shape.len() - 1];
                Value::from_fn(shape, |position| {
                    (0..left.shape[rank - 1])
                        .map(|inner| {
                            let mut a = position.to_vec();
                            a[rank - 1] = inner;
                            let mut b = position.to_vec();
                            b[rank - 2] = inner;
                            left.at(&a) * right.at(&b[rank - right.shape.len()..])
                        })
                        .sum()
                })
            }
            Node::Gather(gather) => {
                let (table, indices) = (self.of(gather.table), self.of(gather.indices));
                let shape = [indices.shape.as_slice(), &table.shape[1..]].concat();
                Value::from_fn(shape, |position| {
                    let (index, rest) = position.split_at(indices.shape.len());
                    table.at(&[&[indices.at(index) as usize], rest].concat())
                })
            }
            Node::OneHot(one_hot) => {
                let indices = self.of(one_hot.indices);
                let shape = [indices.shape.as_slice(), &[one_hot.depth as usize]].concat();
                Value::from_fn(shape, |position| {
                    let (place, index) = position.split_last().expect("a last axis");
                    truth(indices.at(index) == *place as f64)
                })
            }
            Node::Dropout(dropout) => self.of(dropout.operand).clone(),
            Node::LayerNorm(norm) => {
                let operand = self.of(norm.operand);
                let last = operand.shape.len() as u32 - 1;
                let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
                let means = self.along(norm.operand, last, mean);
                let variances = self.along(norm.operand, last, |x| {
                    let centre = mean(x);
                    x.iter().map(|x| (x - centre).powi(2)).sum::<f64>() / x.len() as f64
                });
                let (scale, offset) = (self.of(norm.scale), self.of(norm.offset));
                Value::from_fn(operand.shape.clone(), |position| {
                    let (place, row) = position.split_last().expect("a last axis");
                    let deviation = (variances.at(row) + f64::from(norm.epsilon)).sqrt();
                    (operand.at(position) - means.at(row)) / deviation * scale.data[*place]
                        + offset.data[*place]
                })
            }
            Node::RmsNorm(norm) => {
                let operand = self.of(norm.operand);
                let last = operand.shape.len() as u32 - 1;
                let squares = self.along(norm.operand, last, |x| {
                    x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64
                });
                let scale = self.of(norm.scale);
                Value::from_fn(operand.shape.clone(), |position| {
                    let (place, row) = position.split_last().expect("a last axis");
                    let root = (squares.at(row) + f64::from(norm.epsilon)).sqrt();
                    operand.at(position) / root * scale.data[*place]
                })
            }
            Node::Attention(attention) => {
                let (query, key) = (self.of(attention.query), self.of(attention.key));
                let value = self.of(attention.value);
                let mask = attention.mask.map(|mask| self.of(mask));
                let width = query.shape[3];
                let group = query.shape[2] / key.shape[2];
                let scale = attention
                    .scale
                    .map_or(1.0 / (width as f64).sqrt(), f64::from);
                let places = key.shape[1];
                Value::from_fn(query.shape.clone(), |position| {
                    let [batch, time, head, column] = [0, 1, 2, 3].map(|axis| position[axis]);
                    let seen = if attention.causal { time + 1 } else { places };
                    let scores: Vec<f64> = (0..seen)
                        .map(|place| {
                            let products = (0..width).map(|at| {
                                query.at(&[batch, time, head, at])
                                    * key.at(&[batch, place, head / group, at])
                            });
                            let bias =
                                mask.map_or(0.0, |mask| mask.seen_at(&[batch, head, time, place]));
                            products.sum::<f64>() * scale + bias
                        })
                        .collect();
                    let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                    let shares = scores.iter().map(|score| (score - largest).exp());
                    let total: f64 = shares.clone().sum();
                    shares
                        .enumerate()
                        .map(|(place, share)| {
                            share / total * value.at(&[batch, place, head / group, column])
                        })
                        .sum()
                })
            }
            Node::Pad(pad) => {
                let operand = self.of(pad.operand);
                let axis = pad.axis as usize;
                let mut shape = operand.shape.clone();
                shape[axis] += (pad.before + pad.after) as usize;
                Value::from_fn(shape, |position| {
                    let mut from = position.to_vec();
                    let inside = from[axis]
                        .checked_sub(pad.before as usize)
                        .filter(|place| *place < operand.shape[axis]);
                    inside.map_or(f64::from(pad.value), |place| {
                        from[axis] = place;
                        operand.at(&from)
                    })
                })
            }
            Node::CumulativeSum(sum) => {
                let operand = self.of(sum.operand);
                let axis = sum.axis as usize;
                Value::from_fn(operand.shape.clone(), |position| {
                    let own = position[axis];
                    let counts = |place: &usize| match (sum.exclusive, sum.reverse) {
                        (false, false) => *place <= own,
                        (true, false) => *place < own,
                        (false, true) => *place >= own,
                        (true, true) => *place > own,
                    };
                    let mut from = position.to_vec();
                    (0..operand.shape[axis])
                        .filter(counts)
                        .map(|place| {
                            from[axis] = place;
                            operand.at(&from)
                        })
                        .sum()
                })
            }
            Node::TopK(top) => {
                let operand = self.of(top.operand);
                let axis = top.axis as usize;
                let mut shape = operand.shape.clone();
                shape[axis] = top.count as usize;
                Value::from_fn(shape, |position| {
                    let mut from = position.to_vec();
                    let mut row: Vec<(f64, usize)> = (0..operand.shape[axis])
                        .map(|place| {
                            from[axis] = place;
                            (operand.at(&from), place)
                        })
                        .collect();
                    row.sort_by(|one, other| other.0.total_cmp(&one.0));
                    row[position[axis]].1 as f64
                })
            }
            Node::TakeAlong(take) => {
                let (operand, indices) = (self.of(take.operand), self.of(take.indices));
                Value::from_fn(indices.shape.clone(), |position| {
                    let mut from = position.to_vec();
                    from[take.axis as usize] = indices.at(position) as usize;
                    operand.at(&from)
                })
            }
            Node::ScatterAdd(scatter) => {
                let (indices, updates) = (self.of(scatter.indices), self.of(scatter.updates));
                let rank = indices.shape.len();
                let shape = [&[scatter.size as usize], &updates.shape[rank..]].concat();
                let places = positions(&indices.shape);
                Value::from_fn(shape, |position| {
                    let (row, rest) = position.split_first().expect("a row");
                    let hits = places
                        .iter()
                        .filter(|place| indices.at(place) == *row as f64);
                    hits.map(|place| updates.at(&[place, rest].concat())).sum()
                })
            }
            Node::Convolution(convolution) => self.convolution(convolution),
            Node::Pool(pool) => self.pool(pool),
            Node::BatchNorm(norm) => {
                let operand = self.of(norm.operand);
                let channels = operand.shape.len() - 1;
                let (scale, offset) = (self.of(norm.scale), self.of(norm.offset));
                let of_channel = |channel: usize| -> Vec<f64> {
                    let all = positions(&operand.shape).into_iter();
                    all.filter(|position| position[channels] == channel)
                        .map(|position| operand.at(&position))
                        .collect()
                };
                let found: Vec<(f64, f64)> = (0..operand.shape[channels])
                    .map(|channel| match norm.statistics {
                        Some(found) => (
                            self.of(found.mean).data[channel],
                            self.of(found.variance).data[channel],
                        ),
                        None => moments(&of_channel(channel)),
                    })
                    .collect();
                Value::from_fn(operand.shape.clone(), |position| {
                    let channel = position[channels];
                    let (mean, variance) = found[channel];
                    (operand.at(position) - mean) / (variance + f64::from(norm.epsilon)).sqrt()
                        * scale.data[channel]
                        + offset.data[channel]
                })
            }
            Node::GroupNorm(norm) => {
                let operand = self.of(norm.operand);
                let last = operand.shape.len() - 1;
                let each = operand.shape[last] / norm.groups as usize;
                let (scale, offset) = (self.of(norm.scale), self.of(norm.offset));
                let all = positions(&operand.shape);
                let mut found = BTreeMap::new();
                for row in 0..operand.shape[0] {
                    for group in 0..norm.groups as usize {
                        let of_group: Vec<f64> = all
                            .iter()
                            .filter(|position| position[0] == row && position[last] / each == group)
                            .map(|position| operand.at(position))
                            .collect();
                        found.insert((row, group), moments(&of_group));
                    }
                }
                Value::from_fn(operand.shape.clone(), |position| {
                    let channel = position[last];
                    let (mean, variance) = found[&(position[0], channel / each)];
                    (operand.at(position) - mean) / (variance + f64::from(norm.epsilon)).sqrt()
                        * scale.data[channel]
                        + offset.data[channel]
                })
            }
            Node::Dequantise(node) => {
                let codes = self.of(node.codes);
                let (scale, zero) = (self.of(node.scale), node.zero.map(|zero| self.of(zero)));
                let bits = node.width.bits();
                let each = node.width.in_a_word() as usize;
                let last = codes.shape.len() - 1;
                let mut shape = codes.shape.clone();
                shape[last] = node.extent as usize;
                Value::from_fn(shape, |position| {
                    let mut from = position.to_vec();
                    from[last] = position[last] / each;
                    let word = i64::from(codes.at(&from) as i32 as u32);
                    let code =
                        (word >> (bits as usize * (position[last] % each))) & ((1 << bits) - 1);
                    let signed = if code >= 1 << (bits - 1) {
                        code - (1 << bits)
                    } else {
                        code
                    };
                    let centre = zero.map_or(0.0, |zero| zero.seen_at(position));
                    (signed as f64 - centre) * scale.seen_at(position)
                })
            }
            Node::CrossEntropy(cross) => {
                let logits = self.of(cross.logits);
                let labels = self.of(cross.labels);
                let last = logits.shape.len() as u32 - 1;
                let total = self.along(cross.logits, last, |x| {
                    let largest = x.iter().copied().fold(f64::MIN, f64::max);
                    largest + x.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
                });
                Value::from_fn(labels.shape.clone(), |row| {
                    total.at(row) - logits.at(&[row, &[labels.at(row) as usize]].concat())
                })
            }
            Node::BinaryCrossEntropy(cross) => self.each(&[cross.logits, cross.targets], |x| {
                let share = 1.0 / (1.0 + (-x[0]).exp());
                -(x[1] * share.ln() + (1.0 - x[1]) * (1.0 - share).ln())
            }),
            Node::SquaredError(error) => self.each(&[error.predictions, error.targets], |x| {
                (x[0] - x[1]).powi(2)
            }),
            Node::Huber(huber) => self.each(&[huber.predictions, huber.targets], |x| {
                let (size, delta) = ((x[0] - x[1]).abs(), f64::from(huber.delta));
                if size <= delta {
                    0.5 * size * size
                } else {
                    delta * (size - 0.5 * delta)
                }
            }),
        }
    }

    fn reduce(&self, reduce: &ReduceNode) -> Value {
        let operand = self.of(reduce.operand);
        let axes: Vec<usize> = reduce.axes.iter().map(|axis| *axis as usize).collect();
        let kept: Vec<usize> = (0..operand.shape.len())
            .filter(|axis| !axes.contains(axis))
            .collect();
        let mut found: BTreeMap<Vec<usize>, Vec<f64>> = BTreeMap::new();
        let kept_shape: Vec<usize> = kept.iter().map(|axis| operand.shape[*axis]).collect();
        for position in positions(&kept_shape) {
            found.insert(position, Vec::new());
        }
        for position in positions(&operand.shape) {
            let key: Vec<usize> = kept.iter().map(|axis| position[*axis]).collect();
            found.entry(key).or_default().push(operand.at(&position));
        }
        let data = found
            .values()
            .map(|values| match reduce.reduction {
                Reduction::Sum => values.iter().sum(),
                Reduction::Mean => values.iter().sum::<f64>() / values.len() as f64,
                Reduction::Maximum => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                Reduction::Minimum => values.iter().copied().fold(f64::INFINITY, f64::min),
            })
            .collect();
        let shape = if reduce.keep {
            let extents = operand.shape.iter().enumerate();
            extents
                .map(|(axis, extent)| if axes.contains(&axis) { 1 } else { *extent })
                .collect()
        } else {
            kept_shape
        };
        Value { shape, data }
    }

    /// Every pair of an element of the operand and one of the result that an element of the
    /// kernel joins, by its definition.
    fn convolution(&self, node: &ConvolutionNode) -> Value {
        let (operand, kernel) = (self.of(node.operand), self.of(node.kernel));
        let axes = node.strides.len();
        let groups = node.groups as usize;
        let (per_group, features) = (kernel.shape[axes], kernel.shape[axes + 1]);
        let mut shape = operand.shape.clone();
        for axis in 0..axes {
            let (size, stride) = (kernel.shape[axis], node.strides[axis] as usize);
            let reach = node.dilation[axis] as usize * (size - 1) + 1;
            let around = (node.padding[axis].before + node.padding[axis].after) as usize;
            let extent = operand.shape[1 + axis];
            shape[1 + axis] = if node.transposed {
                (extent - 1) * stride + reach - around
            } else {
                (extent + around - reach) / stride + 1
            };
        }
        shape[1 + axes] = if node.transposed {
            per_group * groups
        } else {
            features
        };
        let mut result = Value {
            data: vec![0.0; shape.iter().product()],
            shape,
        };
        // The windows stand on the longer side.
        let (windows, places) = if node.transposed {
            (operand.shape.clone(), result.shape.clone())
        } else {
            (result.shape.clone(), operand.shape.clone())
        };
        for window in positions(&windows[..=axes]) {
            for tap in positions(&kernel.shape) {
                let mut place = vec![window[0]];
                for axis in 0..axes {
                    let at = window[1 + axis] * node.strides[axis] as usize
                        + tap[axis] * node.dilation[axis] as usize;
                    let at = at.checked_sub(node.padding[axis].before as usize);
                    place.extend(at.filter(|at| *at < places[1 + axis]));
                }
                if place.len() <= axes {
                    continue;
                }
                let feature = tap[axes + 1];
                let group = feature / (features / groups);
                place.push(group * per_group + tap[axes]);
                let mut window = window.clone();
                window.push(feature);
                let weight = kernel.at(&tap);
                if node.transposed {
                    *result.at_mut(&place) += operand.at(&window) * weight;
                } else {
                    *result.at_mut(&window) += operand.at(&place) * weight;
                }
            }
        }
        result
    }

    fn pool(&self, pool: &PoolNode) -> Value {
        let operand = self.of(pool.operand);
        let axes = pool.window.len();
        let mut shape = operand.shape.clone();
        for axis in 0..axes {
            let around = (pool.padding[axis].before + pool.padding[axis].after) as usize;
            shape[1 + axis] = (operand.shape[1 + axis] + around - pool.window[axis] as usize)
                / pool.strides[axis] as usize
                + 1;
        }
        let window: Vec<usize> = pool.window.iter().map(|size| *size as usize).collect();
        Value::from_fn(shape, |position| {
            let inside: Vec<f64> = positions(&window)
                .iter()
                .filter_map(|tap| {
                    let mut from = position.to_vec();
                    for axis in 0..axes {
                        let at = position[1 + axis] * pool.strides[axis] as usize + tap[axis];
                        let at = at.checked_sub(pool.padding[axis].before as usize)?;
                        from[1 + axis] = (at < operand.shape[1 + axis]).then_some(at)?;
                    }
                    Some(operand.at(&from))
                })
                .collect();
            let sum: f64 = inside.iter().sum();
            match pool.reduction {
                Reduction::Sum => sum,
                Reduction::Mean => sum / inside.len() as f64,
                Reduction::Maximum => inside.into_iter().fold(f64::NEG_INFINITY, f64::max),
                Reduction::Minimum => inside.into_iter().fold(f64::INFINITY, f64::min),
            }
        })
    }

    /// A function of the elements along an axis, which goes away.
    fn along(&self, operand: NodeId, axis: u32, f: impl Fn(&[f64]) -> f64) -> Value {
        let operand = self.of(operand);
        let mut shape = operand.shape.clone();
        let extent = shape.remove(axis as usize);
        Value::from_fn(shape, |position| {
            let values: Vec<f64> = (0..extent)
                .map(|place| {
                    let mut from = position.to_vec();
                    from.insert(axis as usize, place);
                    operand.at(&from)
                })
                .collect();
            f(&values)
        })
    }
}

/// The mean, and the variance of the population.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2));
    (mean, squares.sum::<f64>() / count)
}

fn apply(operation: UnaryOperation, x: f64) -> f64 {
    let truth = |value: bool| if value { 1.0 } else { 0.0 };
    match operation {
        UnaryOperation::Negate => -x,
        UnaryOperation::Absolute => x.abs(),
        UnaryOperation::Exponential => x.exp(),
        UnaryOperation::Logarithm => x.ln(),
        UnaryOperation::SquareRoot => x.sqrt(),
        UnaryOperation::Square => x * x,
        UnaryOperation::Reciprocal => 1.0 / x,
        UnaryOperation::Tanh => x.tanh(),
        UnaryOperation::Logistic => 1.0 / (1.0 + (-x).exp()),
        UnaryOperation::Relu => x.max(0.0),
        UnaryOperation::Gelu => x * normal_distribution(x),
        UnaryOperation::Silu => x / (1.0 + (-x).exp()),
        UnaryOperation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        UnaryOperation::Floor => x.floor(),
        UnaryOperation::Sign => x
            .partial_cmp(&0.0)
            .map_or(f64::NAN, |order| f64::from(order as i8)),
        UnaryOperation::IsNan => truth(x.is_nan()),
        UnaryOperation::LogicalNot => truth(x == 0.0),
        UnaryOperation::Sine => x.sin(),
        UnaryOperation::Cosine => x.cos(),
        UnaryOperation::Tangent => x.tan(),
        UnaryOperation::Round => x.round_ties_even(),
        UnaryOperation::Ceiling => x.ceil(),
        UnaryOperation::ErrorFunction => {
            2.0 * normal_distribution(x * std::f64::consts::SQRT_2) - 1.0
        }
        UnaryOperation::ExponentialMinusOne => x.exp_m1(),
        UnaryOperation::LogPlusOne => x.ln_1p(),
        UnaryOperation::CubeRoot => x.cbrt(),
        UnaryOperation::ReciprocalSquareRoot => 1.0 / x.sqrt(),
        UnaryOperation::IsFinite => truth(x.is_finite()),
    }
}

/// By the series of erf (Abramowitz and Stegun 7.1.5), which is exact enough for |x| < 5.
fn normal_distribution(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let mut term = z;
    let mut sum = z;
    for n in 1..120 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    0.5 + sum / std::f64::consts::PI.sqrt()
}
