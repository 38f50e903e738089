//! How the elements of a value lie in a buffer: an offset, and a stride for each axis.

use crate::shape::dense_strides;

/// Elements of a buffer under a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) offset: usize,
    pub(crate) extents: Vec<usize>,
    /// In elements; 0 where the axis repeats.
    pub(crate) strides: Vec<usize>,
}

/// One axis of a view: how many, and how far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) extent: usize,
    pub(crate) stride: usize,
}

impl View {
    /// Row-major from the start of a buffer.
    pub(crate) fn dense(extents: Vec<usize>) -> View {
        View {
            offset: 0,
            strides: dense_strides(&extents),
            extents,
        }
    }

    pub(crate) fn elements(&self) -> usize {
        self.extents.iter().product()
    }

    /// Whether the elements lie one after the other in row-major order.
    pub(crate) fn is_dense(&self) -> bool {
        match self.axes().as_slice() {
            [] => true,
            [axis] => axis.stride == 1,
            _ => self.elements() == 0,
        }
    }

    /// The axes from the outermost on, with those of extent 1 left out and those that one
    /// stride can walk together joined.
    pub(crate) fn axes(&self) -> Vec<Axis> {
        let mut axes: Vec<Axis> = Vec::with_capacity(self.extents.len());
        for (extent, stride) in self
            .extents
            .iter()
            .copied()
            .zip(self.strides.iter().copied())
        {
            match axes.last_mut() {
                _ if extent == 1 => {}
                Some(outer) if outer.stride == stride * extent => {
                    *outer = Axis {
                        extent: outer.extent * extent,
                        stride,
                    };
                }
                _ => axes.push(Axis { extent, stride }),
            }
        }
        axes
    }

    pub(crate) fn transpose(&self, permutation: &[usize]) -> View {
        View {
            offset: self.offset,
            extents: permutation.iter().map(|axis| self.extents[*axis]).collect(),
            strides: permutation.iter().map(|axis| self.strides[*axis]).collect(),
        }
    }

    /// `repeated` says which axes of the result, aligned at their ends, repeat the operand.
    pub(crate) fn broadcast(&self, extents: Vec<usize>, repeated: &[bool]) -> View {
        let extra = extents.len() - self.extents.len();
        let strides = (0..extents.len())
            .map(|axis| {
                if axis < extra || repeated[axis] {
                    0
                } else {
                    self.strides[axis - extra]
                }
            })
            .collect();
        View {
            offset: self.offset,
            extents,
            strides,
        }
    }

    pub(crate) fn slice(&self, axis: usize, start: usize, extent: usize) -> View {
        let mut view = self.clone();
        view.offset += start * self.strides[axis];
        view.extents[axis] = extent;
        view
    }

    /// An axis as `count` windows of `size` elements.
    pub(crate) fn window(
        &self,
        axis: usize,
        [count, size]: [usize; 2],
        [stride, dilation]: [usize; 2],
    ) -> View {
        let mut view = self.clone();
        let step = self.strides[axis];
        view.extents.splice(axis..=axis, [count, size]);
        view.strides
            .splice(axis..=axis, [stride * step, dilation * step]);
        view
    }

    /// The same elements under another shape; none where strides cannot say it.
    pub(crate) fn reshape(&self, extents: &[usize]) -> Option<View> {
        if self.is_dense() {
            return Some(View {
                offset: self.offset,
                ..View::dense(extents.to_vec())
            });
        }
        // Every joined axis must be a run of the new axes.
        let mut strides = vec![0; extents.len()];
        let mut place = 0;
        for axis in self.axes() {
            let mut rest = axis.extent;
            while rest > 1 {
                let extent = *extents.get(place)?;
                if extent == 0 || rest % extent != 0 {
                    return None;
                }
                rest /= extent;
                strides[place] = rest * axis.stride;
                place += 1;
            }
        }
        // What is left has extent 1.
        extents[place..]
            .iter()
            .all(|extent| *extent == 1)
            .then(|| View {
                offset: self.offset,
                extents: extents.to_vec(),
                strides,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(view: &View) -> Vec<usize> {
        let mut places = vec![view.offset];
        for (extent, stride) in view.extents.iter().zip(&view.strides) {
            places = places
                .iter()
                .flat_map(|place| (0..*extent).map(move |at| place + at * stride))
                .collect();
        }
        places
    }

    #[test]
    fn views_say_where_elements_are() {
        let view = View::dense(vec![2, 3, 4]);
        assert!(view.is_dense());
        let turned = view.transpose(&[1, 0, 2]);
        assert_eq!(turned.extents, [3, 2, 4]);
        assert_eq!(places(&turned)[..6], [0, 1, 2, 3, 12, 13]);
        assert!(!turned.is_dense());
        let cut = view.slice(0, 1, 1);
        assert_eq!(places(&cut), (12..24).collect::<Vec<_>>());
        assert!(cut.is_dense());
        let windows = View::dense(vec![7, 2]).window(0, [3, 2], [2, 3]);
        assert_eq!(windows.extents, [3, 2, 2]);
        assert_eq!(places(&windows), [0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15]);
        let wide = View::dense(vec![3, 1]).broadcast(vec![2, 3, 2], &[true, false, true]);
        assert_eq!(places(&wide), [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_reshape_keeps_the_order_of_elements_or_is_refused() {
        let turned = View::dense(vec![4, 6]).transpose(&[1, 0]);
        let reshaped = turned
            .reshape(&[1, 2, 3, 2, 2])
            .expect("each axis splits by itself");
        assert_eq!(places(&reshaped), places(&turned));
        assert_eq!(turned.reshape(&[24]), None);
        assert_eq!(turned.reshape(&[3, 8]), None);
        let repeated = View::dense(vec![3]).broadcast(vec![2, 3], &[true, false]);
        let reshaped = repeated
            .reshape(&[2, 1, 3])
            .expect("an extent of 1 is free");
        assert_eq!(places(&reshaped), [0, 1, 2, 0, 1, 2]);
    }
}
