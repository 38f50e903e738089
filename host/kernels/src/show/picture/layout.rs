//! Places of boxes: in layers by the longest way from a source (Sugiyama, Tagawa and Toda 1981),
//! within a layer by the means of their neighbours, and then as near below them as the boxes
//! beside allow. Deterministic, and linear in boxes and arrows but for sorting.

/// Room between boxes of a layer, and between layers.
const GAP_X: f64 = 26.0;
const GAP_Y: f64 = 44.0;

/// Passes over all layers that order and that place boxes.
const ORDER_PASSES: usize = 16;
const PLACE_PASSES: usize = 24;

/// Bends of all arrows together; where there were more, arrows that pass layers have none.
const MOST_BENDS: usize = 40_000;

/// Where everything is.
pub(super) struct Layout {
    /// The centre of each box on the horizontal, its upper edge on the vertical.
    pub(super) boxes: Vec<(f64, f64)>,
    /// For each arrow, the bends between its ends: where they are, from top to bottom.
    pub(super) bends: Vec<Vec<(f64, f64, f64)>>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A box, or a bend of an arrow.
struct Place {
    layer: usize,
    width: f64,
    x: f64,
    above: Vec<usize>,
    below: Vec<usize>,
    /// A bend of a long arrow; those are kept straight.
    bend: bool,
}

/// Lays out boxes of these sizes; arrows go from a box to a later one.
pub(super) fn lay_out(sizes: &[(f64, f64)], arrows: &[(usize, usize)]) -> Layout {
    let layers_of = layers(sizes.len(), arrows);
    let mut places: Vec<Place> = sizes
        .iter()
        .zip(&layers_of)
        .map(|((width, _), layer)| Place {
            layer: *layer,
            width: *width,
            x: 0.0,
            above: Vec::new(),
            below: Vec::new(),
            bend: false,
        })
        .collect();
    let spans = arrows
        .iter()
        .map(|(from, to)| layers_of[*to] - layers_of[*from] - 1);
    let bent = spans.sum::<usize>() <= MOST_BENDS;
    let mut chains: Vec<Vec<usize>> = Vec::with_capacity(arrows.len());
    for (from, to) in arrows {
        let mut chain = Vec::new();
        let mut last = *from;
        if bent {
            for layer in layers_of[*from] + 1..layers_of[*to] {
                let bend = places.len();
                places.push(Place {
                    layer,
                    width: 2.0,
                    x: 0.0,
                    above: vec![last],
                    below: Vec::new(),
                    bend: true,
                });
                places[last].below.push(bend);
                chain.push(bend);
                last = bend;
            }
        }
        if bent || layers_of[*to] == layers_of[*from] + 1 {
            places[last].below.push(*to);
            places[*to].above.push(last);
        }
        chains.push(chain);
    }
    let count = layers_of.iter().max().map_or(0, |last| last + 1);
    let mut layers = vec![Vec::new(); count];
    for (index, place) in places.iter().enumerate() {
        layers[place.layer].push(index);
    }
    order(&mut layers, &places);
    put(&layers, &mut places);
    let left = places
        .iter()
        .map(|place| place.x - place.width / 2.0)
        .fold(f64::INFINITY, f64::min);
    let left = if left.is_finite() { left } else { 0.0 };
    for place in &mut places {
        place.x -= left;
    }
    let mut tops = Vec::with_capacity(count);
    let mut heights = Vec::with_capacity(count);
    let mut y = 0.0;
    for layer in &layers {
        let height = layer
            .iter()
            .filter_map(|index| sizes.get(*index))
            .map(|(_, height)| *height)
            .fold(0.0, f64::max);
        tops.push(y);
        heights.push(height);
        y += height + GAP_Y;
    }
    Layout {
        boxes: (0..sizes.len())
            .map(|index| {
                let layer = places[index].layer;
                let slack = heights[layer] - sizes[index].1;
                (places[index].x, tops[layer] + slack / 2.0)
            })
            .collect(),
        bends: chains
            .iter()
            .map(|chain| {
                let at = |bend: &usize| {
                    let place = &places[*bend];
                    let top = tops[place.layer];
                    (place.x, top, top + heights[place.layer])
                };
                chain.iter().map(at).collect()
            })
            .collect(),
        width: places
            .iter()
            .map(|place| place.x + place.width / 2.0)
            .fold(0.0, f64::max),
        height: (y - GAP_Y).max(0.0),
    }
}

/// The layer of each box: one below the lowest of those before it; one without any stands right
/// above its first reader.
fn layers(count: usize, arrows: &[(usize, usize)]) -> Vec<usize> {
    let mut into: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut out: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (from, to) in arrows {
        into[*to].push(*from);
        out[*from].push(*to);
    }
    let mut layers = vec![0; count];
    for index in 0..count {
        let above = into[index].iter().map(|from| layers[*from] + 1);
        layers[index] = above.max().unwrap_or(0);
    }
    for index in (0..count).rev() {
        if into[index].is_empty() {
            let below = out[index].iter().map(|to| layers[*to]).min();
            layers[index] = below.map_or(0, |below: usize| below.saturating_sub(1));
        }
    }
    layers
}

/// Orders each layer by the means of the neighbours above, then below, and so on; keeps the
/// order with the fewest crossings.
fn order(layers: &mut Vec<Vec<usize>>, places: &[Place]) {
    let mut rank = vec![0.0; places.len()];
    let number = |layers: &[Vec<usize>], rank: &mut Vec<f64>| {
        for layer in layers {
            for (at, index) in layer.iter().enumerate() {
                rank[*index] = at as f64;
            }
        }
    };
    number(layers, &mut rank);
    let mut best = layers.clone();
    let mut fewest = crossings(layers, places, &rank);
    for pass in 0..ORDER_PASSES {
        if fewest == 0 {
            break;
        }
        let downwards = pass % 2 == 0;
        let count = layers.len();
        for step in 0..count {
            let at = if downwards { step } else { count - 1 - step };
            let mean = |index: &usize| {
                let place = &places[*index];
                let beside = if downwards {
                    &place.above
                } else {
                    &place.below
                };
                if beside.is_empty() {
                    rank[*index]
                } else {
                    beside.iter().map(|other| rank[*other]).sum::<f64>() / beside.len() as f64
                }
            };
            let mut keyed: Vec<(f64, usize)> = layers[at]
                .iter()
                .map(|index| (mean(index), *index))
                .collect();
            // Stable: equal ones stay as they were.
            keyed.sort_by(|one, other| one.0.total_cmp(&other.0));
            layers[at] = keyed.into_iter().map(|(_, index)| index).collect();
            for (place, index) in layers[at].iter().enumerate() {
                rank[*index] = place as f64;
            }
        }
        let found = crossings(layers, places, &rank);
        if found < fewest {
            fewest = found;
            best.clone_from(layers);
        }
    }
    *layers = best;
}

/// Arrows that cross between neighbouring layers (Barth, Jünger and Mutzel 2002, by a tree of
/// sums).
fn crossings(layers: &[Vec<usize>], places: &[Place], rank: &[f64]) -> usize {
    let mut total = 0;
    for pair in layers.windows(2) {
        let mut ends: Vec<usize> = Vec::new();
        for index in &pair[0] {
            let mut below: Vec<usize> = places[*index]
                .below
                .iter()
                .map(|other| rank[*other] as usize)
                .collect();
            below.sort_unstable();
            ends.extend(below);
        }
        let size = pair[1].len() + 1;
        let mut sums = vec![0_usize; size + 1];
        for (seen, end) in ends.iter().enumerate() {
            // How many before end at most here.
            let mut at = end + 1;
            let mut before = 0;
            while at > 0 {
                before += sums[at];
                at -= at & at.wrapping_neg();
            }
            total += seen - before;
            let mut at = end + 1;
            while at <= size {
                sums[at] += 1;
                at += at & at.wrapping_neg();
            }
        }
    }
    total
}

/// Moves each layer to where its neighbours are, as far as the order and the gaps allow.
fn put(layers: &[Vec<usize>], places: &mut [Place]) {
    for layer in layers {
        let mut x = 0.0;
        for index in layer {
            places[*index].x = x + places[*index].width / 2.0;
            x += places[*index].width + GAP_X;
        }
        let middle = (x - GAP_X) / 2.0;
        for index in layer {
            places[*index].x -= middle;
        }
    }
    for pass in 0..PLACE_PASSES {
        let downwards = pass % 2 == 0;
        let count = layers.len();
        for step in 0..count {
            let at = if downwards { step } else { count - 1 - step };
            let layer = &layers[at];
            let mut wanted = Vec::with_capacity(layer.len());
            for index in layer {
                let place = &places[*index];
                let beside = if downwards {
                    &place.above
                } else {
                    &place.below
                };
                let weight = |other: &usize| {
                    if place.bend && places[*other].bend {
                        8.0
                    } else {
                        1.0
                    }
                };
                let total: f64 = beside.iter().map(weight).sum();
                let sum: f64 = beside
                    .iter()
                    .map(|other| weight(other) * places[*other].x)
                    .sum();
                wanted.push(if total > 0.0 {
                    (sum / total, if place.bend { 4.0 } else { 1.0 })
                } else {
                    (place.x, 0.1)
                });
            }
            for (index, x) in layer.iter().zip(apart(&wanted, layer, places)) {
                places[*index].x = x;
            }
        }
    }
}

/// The places nearest to those wanted, by weighted squares, that keep the order and the gaps:
/// neighbours that would overlap form a block with one common shift.
fn apart(wanted: &[(f64, f64)], layer: &[usize], places: &[Place]) -> Vec<f64> {
    // Where each stands from the first when all are packed.
    let mut offsets = Vec::with_capacity(layer.len());
    let mut offset = 0.0;
    for (at, index) in layer.iter().enumerate() {
        if at > 0 {
            let before = &places[layer[at - 1]];
            let gap = if before.bend && places[*index].bend {
                GAP_X / 3.0
            } else {
                GAP_X
            };
            offset += before.width / 2.0 + gap + places[*index].width / 2.0;
        }
        offsets.push(offset);
    }
    // Blocks of (weight, weighted sum, members).
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for ((x, weight), offset) in wanted.iter().zip(&offsets) {
        let mut block = (*weight, weight * (x - offset), 1);
        while let Some(last) = blocks.last() {
            if last.1 / last.0 <= block.1 / block.0 {
                break;
            }
            block = (last.0 + block.0, last.1 + block.1, last.2 + block.2);
            blocks.pop();
        }
        blocks.push(block);
    }
    let mut shifts = blocks
        .iter()
        .flat_map(|(weight, sum, members)| std::iter::repeat_n(sum / weight, *members));
    offsets
        .iter()
        .map(|offset| offset + shifts.next().unwrap_or(0.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlapping(layout: &Layout, sizes: &[(f64, f64)]) -> bool {
        (0..sizes.len()).any(|one| {
            (0..one).any(|other| {
                let apart_x = (layout.boxes[one].0 - layout.boxes[other].0).abs()
                    >= (sizes[one].0 + sizes[other].0) / 2.0;
                let (upper, lower) = if layout.boxes[one].1 < layout.boxes[other].1 {
                    (one, other)
                } else {
                    (other, one)
                };
                let apart_y = layout.boxes[upper].1 + sizes[upper].1 <= layout.boxes[lower].1;
                !apart_x && !apart_y
            })
        })
    }

    #[test]
    fn boxes_do_not_overlap_and_arrows_go_down() {
        let sizes: Vec<(f64, f64)> = (0..60)
            .map(|index| {
                (
                    40.0 + f64::from(index % 7) * 20.0,
                    20.0 + f64::from(index % 3) * 14.0,
                )
            })
            .collect();
        let arrows: Vec<(usize, usize)> = (1..60)
            .flat_map(|to| {
                [
                    (to * 7 % to, to),
                    (to * 31 % to, to),
                    (to - 1 - to % 3 % to, to),
                ]
            })
            .collect();
        let layout = lay_out(&sizes, &arrows);
        assert!(!overlapping(&layout, &sizes));
        for ((from, to), bends) in arrows.iter().zip(&layout.bends) {
            let mut y = layout.boxes[*from].1 + sizes[*from].1;
            for (x, top, bottom) in bends {
                assert!(*top >= y && bottom >= top && *x >= 0.0);
                y = *bottom;
            }
            assert!(layout.boxes[*to].1 > y);
        }
        for ((x, y), (width, height)) in layout.boxes.iter().zip(&sizes) {
            assert!(x - width / 2.0 >= -1e-6 && x + width / 2.0 <= layout.width + 1e-6);
            assert!(*y >= 0.0 && y + height <= layout.height + 1e-6);
        }
    }

    #[test]
    fn a_chain_is_straight_and_a_diamond_symmetric() {
        let sizes = [(50.0, 20.0); 4];
        let chain = lay_out(&sizes, &[(0, 1), (1, 2), (2, 3)]);
        assert!(chain.boxes.iter().all(|(x, _)| (x - 25.0).abs() < 1e-6));
        let diamond = lay_out(&sizes, &[(0, 1), (0, 2), (1, 3), (2, 3)]);
        let x: Vec<f64> = diamond.boxes.iter().map(|(x, _)| *x).collect();
        assert!((x[0] - x[3]).abs() < 1e-6 && (x[1] + x[2] - 2.0 * x[0]).abs() < 1e-6);
        assert_eq!(lay_out(&[], &[]).height, 0.0);
    }
}
