//! What happens to gradients and weights after the shards are done, on one stretch of numbers.

use super::level::for_each_level;
use crate::graph::Optimizer;

for_each_level! {
    /// Adds the stretches of all shards, pair by pair, so that the order depends on their number
    /// alone; the sum is in the first. Then scales it.
    pub(crate) fn combine => combine_body(shards: &mut [&mut [f32]], scale: f32)
}

#[inline(always)]
fn combine_body<const FUSED: bool>(shards: &mut [&mut [f32]], scale: f32) {
    let count = shards.len();
    let mut width = 1;
    while width < count {
        for first in (0..count - width).step_by(2 * width) {
            let (left, right) = shards.split_at_mut(first + width);
            for (sum, value) in left[first].iter_mut().zip(right[0].iter()) {
                *sum += *value;
            }
        }
        width *= 2;
    }
    if let Some(first) = shards.first_mut() {
        first.iter_mut().for_each(|value| *value *= scale);
    }
}

/// The sum of squares, in float64 over eight lanes.
pub(crate) fn square_sum(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    let chunks = values.chunks_exact(8);
    for (lane, value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += f64::from(*value) * f64::from(*value);
    }
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
    lanes.iter().sum()
}

/// The numbers of one update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    pub(crate) optimizer: Optimizer,
    pub(crate) learning_rate: f32,
    /// Scales gradients before anything else.
    pub(crate) scale: f32,
    /// Updates so far, this one included.
    pub(crate) count: u64,
}

for_each_level! {
    /// Changes a stretch of weights by its gradient. `first` and `second` are what the optimizer
    /// remembers of the stretch; SGD has no second.
    pub(crate) fn update => update_body(
        update: &Update,
        gradient: &[f32],
        weights: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
    )
}

#[inline(always)]
fn update_body<const FUSED: bool>(
    update: &Update,
    gradient: &[f32],
    weights: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let Update {
        learning_rate: rate,
        scale,
        count,
        ..
    } = *update;
    match update.optimizer {
        Optimizer::Sgd(sgd) => {
            for ((weight, gradient), velocity) in weights.iter_mut().zip(gradient).zip(first) {
                let slope = gradient * scale + sgd.weight_decay * *weight;
                *velocity = sgd.momentum * *velocity + slope;
                *weight -= rate * *velocity;
            }
        }
        Optimizer::Adam(adam) => {
            // Kingma and Ba 2015, algorithm 1, with the corrections of the bias taken out of
            // the loop.
            let correction =
                |beta: f32| 1.0 - f64::from(beta).powi(i32::try_from(count).unwrap_or(i32::MAX));
            let step = (f64::from(rate) / correction(adam.beta1)) as f32;
            let inverse = (1.0 / correction(adam.beta2).sqrt()) as f32;
            let coupled = if adam.decoupled {
                0.0
            } else {
                adam.weight_decay
            };
            let decay = if adam.decoupled {
                1.0 - rate * adam.weight_decay
            } else {
                1.0
            };
            let stretches = weights
                .iter_mut()
                .zip(gradient)
                .zip(first.iter_mut().zip(second));
            for ((weight, gradient), (first, second)) in stretches {
                let slope = gradient * scale + coupled * *weight;
                *first = adam.beta1 * *first + (1.0 - adam.beta1) * slope;
                *second = adam.beta2 * *second + (1.0 - adam.beta2) * (slope * slope);
                let size = second.sqrt() * inverse + adam.epsilon;
                *weight = *weight * decay - step * (*first / size);
            }
        }
    }
}
