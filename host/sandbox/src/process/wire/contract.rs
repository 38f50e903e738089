//! The records and variants of the contract, as far as functions of the host take or give them.

use std::io;

use super::{Reader, Wire, unknown};
use crate::bindings::adapter::exports::sandcast::plugin::adapter;
use crate::bindings::adapter::sandcast::plugin::{blob, compute, models, sql, types};
use crate::bindings::adapter::wasi::config::store as config;
use crate::bindings::adapter::wasi::keyvalue::{atomics, store};
use crate::bindings::adapter::wasi::logging::logging;
use crate::bindings::connector::exports::sandcast::plugin::connector;
use crate::bindings::validator::exports::sandcast::plugin::validator;

records! {
    types::Field { name, kind, nullable }
    types::Failure { code, message, hint }
    compute::Symbol { name, maximum }
    compute::Input { name, dtype, shape }
    compute::Parameter { name, shape, initializer, trainable }
    compute::F32Literal { shape, values }
    compute::I32Literal { shape, values }
    compute::UnaryNode { operation, operand }
    compute::BinaryNode { operation, left, right }
    compute::CompareNode { comparison, left, right }
    compute::SelectNode { condition, on_true, on_false }
    compute::CastNode { operand, dtype }
    compute::ClampNode { operand, minimum, maximum }
    compute::ReshapeNode { operand, shape }
    compute::TransposeNode { operand, permutation }
    compute::BroadcastNode { operand, shape }
    compute::SliceNode { operand, axis, start, limit }
    compute::ConcatenateNode { operands, axis }
    compute::ReduceNode { reduction, operand, axes, keep }
    compute::ArgmaxNode { operand, axis }
    compute::SoftmaxNode { operand, axis, logarithm }
    compute::MatmulNode { left, right }
    compute::GatherNode { table, indices }
    compute::OneHotNode { indices, depth }
    compute::DropoutNode { operand, rate }
    compute::LayerNormNode { operand, scale, offset, epsilon }
    compute::CrossEntropyNode { logits, labels }
    compute::BinaryCrossEntropyNode { logits, targets }
    compute::SquaredErrorNode { predictions, targets }
    compute::HuberNode { predictions, targets, delta }
    compute::RmsNormNode { operand, scale, epsilon }
    compute::AttentionNode { query, key, value, mask, causal, scale }
    compute::PadNode { operand, axis, before, after, value }
    compute::CumulativeSumNode { operand, axis, exclusive, reverse }
    compute::TopKNode { operand, axis, count }
    compute::TakeAlongNode { operand, indices, axis }
    compute::ScatterAddNode { indices, updates, size }
    compute::Padding { before, after }
    compute::ConvolutionNode { operand, kernel, strides, padding, dilation, groups, transposed }
    compute::PoolNode { reduction, operand, window, strides, padding }
    compute::Statistics { mean, variance }
    compute::BatchNormNode { operand, scale, offset, statistics, epsilon }
    compute::GroupNormNode { operand, scale, offset, groups, epsilon }
    compute::DequantiseNode { codes, width, extent, scale, zero }
    compute::Output { name, node }
    compute::Entry { name, outputs }
    compute::Loss { per_row, weight }
    compute::Sgd { momentum, weight_decay }
    compute::Adam { beta1, beta2, epsilon, weight_decay, decoupled }
    compute::Generation { tokens, positions, logits }
    compute::Graph { symbols, nodes, entries, loss, optimizer, generation }
    compute::Diagnostic { code, node, message }
    compute::Cost { entry, flops, bytes_moved, peak_bytes }
    compute::Category { column, vocabulary }
    compute::Binding { input, encoding }
    compute::Cosine { warmup_steps, floor }
    compute::Warmed { warmup_steps, floor }
    compute::Stepwise { every_steps, factor }
    compute::TrainPlan { epochs, epoch_rows, batch_rows, learning_rate, schedule, clip_norm, patience, shuffle, accumulate_steps }
    compute::EpochReport { epoch, train_loss, validation_loss, learning_rate, seconds }
    compute::TrainReport { epochs, best_epoch, steps, rows }
    compute::Feed { input, value }
    compute::ResultTensor { name, value }
    compute::Sampling { temperature, top_k, top_p, maximum_tokens, stop, seed, drawn, slide }
    compute::Prompt { tokens, sampling }
    compute::Completion { tokens, finish }
    compute::CategorySplits { one_vs_rest, most, min_rows, smoothing, l2 }
    compute::ForestPlan { objective, rounds, learning_rate, max_leaves, max_depth, min_rows, min_hessian, l1, l2, min_gain, max_bins, min_rows_in_bin, feature_fraction, bagging_fraction, bagging_rounds, patience, categories, class_weights }
    compute::ForestColumns { numbers, categories }
    compute::ForestExamples { training, validation, columns, target, weight }
    compute::RoundReport { round, train_loss, validation_loss, leaves, seconds }
    compute::ForestReport { rounds, best_round }
    compute::Importance { column, gain, splits }
    compute::TrainedForest { forest, report }
    models::Task { kind, features, target, classes, weight }
    adapter::Description { name, tasks, hyperparameters }
    adapter::Trained { state, predictor }
    adapter::GenerationOptions { maximum_tokens, temperature, top_k, top_p, stop, seed }
}

variants! {
    compute::Extent { Fixed(it), Symbol(it) }
    compute::Initializer { Zeros, Ones, Uniform(it), Normal(it), GlorotUniform, HeUniform }
    compute::Node { Input(it), Parameter(it), F32Constant(it), I32Constant(it), Unary(it), Binary(it), Compare(it), Select(it), Cast(it), Clamp(it), Reshape(it), Transpose(it), Broadcast(it), Slice(it), Concatenate(it), Reduce(it), Argmax(it), Softmax(it), Matmul(it), Gather(it), OneHot(it), Dropout(it), LayerNorm(it), CrossEntropy(it), BinaryCrossEntropy(it), SquaredError(it), Huber(it), RmsNorm(it), Attention(it), Pad(it), CumulativeSum(it), TopK(it), TakeAlong(it), ScatterAdd(it), Convolution(it), Pool(it), BatchNorm(it), GroupNorm(it), Dequantise(it) }
    compute::Optimizer { Sgd(it), Adam(it) }
    compute::Encoding { Numbers(it), Target(it), Categories(it), Labels(it) }
    compute::Schedule { Constant, Cosine(it), Linear(it), Exponential(it), Stepwise(it) }
    compute::ForestObjective { Logistic, Softmax, SquaredError, Huber(it) }
    compute::ForestTarget { Number(it), Label(it) }
    compute::Predictor { Session(it), Forest(it) }
    adapter::Declaration { Graph(it), Forest(it) }
}

variants! {
    types::Kind { Boolean, Int64, Float64, Utf8, Date32, TimestampUs }
    types::FailureCode { InvalidConfig, InvalidInput, Denied, Unavailable, Exhausted, Unsupported, Internal }
    compute::Dtype { Float32, Int32 }
    compute::UnaryOperation { Negate, Absolute, Exponential, Logarithm, SquareRoot, Square, Reciprocal, Tanh, Logistic, Relu, Gelu, Silu, Softplus, Floor, Sign, IsNan, LogicalNot, Sine, Cosine, Tangent, Round, Ceiling, ErrorFunction, ExponentialMinusOne, LogPlusOne, CubeRoot, ReciprocalSquareRoot, IsFinite }
    compute::BinaryOperation { Add, Subtract, Multiply, Divide, Maximum, Minimum, Power, LogicalAnd, LogicalOr }
    compute::Comparison { Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual }
    compute::Reduction { Sum, Mean, Maximum, Minimum }
    compute::CodeWidth { Int8, Int4 }
    compute::Finish { Stop, Length, Context }
    models::TaskKind { BinaryClassification, MulticlassClassification, Regression, AnomalyDetection, Clustering, TextGeneration }
}

records! {
    store::KeyResponse { keys, cursor }
    blob::Entry { key, size, etag, modified }
    blob::Page { entries, cursor }
    blob::Range { offset, length }
    blob::Object { entry, bytes }
    connector::Split { id, token, rows, bytes, version }
    connector::Filter { column, comparison, literal }
    connector::ScanRequest { split, projection, filters, limit, cursor }
    connector::Reject { row, line, column, reason, message, raw }
    connector::Chunk { rows_read, batch, rejects }
    validator::Finding { rule, column, severity, rows, message }
}

variants! {
    logging::Level { Trace, Debug, Info, Warn, Error, Critical }
    config::Error { Upstream(it), Io(it) }
    store::Error { NoSuchStore, AccessDenied, Other(it) }
    atomics::CasError { StoreError(it), CasFailed(it) }
    sql::Parameter { Null, Boolean(it), Int64(it), Float64(it), Text(it), Bytes(it) }
    blob::Condition { Always, IfAbsent, IfMatch(it) }
    blob::Outcome { Done(it), Unmet }
    connector::Literal { Boolean(it), Int64(it), Float64(it), Utf8(it) }
    connector::Comparison { Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual }
    validator::Severity { Warning, Error }
}
