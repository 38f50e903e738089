//! Kernels that go by numbers found in tensors. Every number is compared with the size of what
//! it selects from before it is used.

/// A number outside what it selects from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfRange {
    pub(crate) number: i32,
    pub(crate) place: usize,
    pub(crate) size: usize,
}

/// The row that a number selects.
pub(crate) fn checked(number: i32, place: usize, size: usize) -> Result<usize, OutOfRange> {
    match usize::try_from(number) {
        Ok(row) if row < size => Ok(row),
        _ => Err(OutOfRange {
            number,
            place,
            size,
        }),
    }
}

/// Whether every number is in `0..size`.
pub(crate) fn check_all(numbers: &[i32], size: usize) -> Result<(), OutOfRange> {
    numbers
        .iter()
        .enumerate()
        .try_for_each(|(place, number)| checked(*number, place, size).map(drop))
}

/// Rows of `width` of a table.
pub(crate) fn gather(
    table: &[f32],
    indices: &[i32],
    target: &mut [f32],
    size: usize,
    width: usize,
) -> Result<(), OutOfRange> {
    if width == 0 {
        return check_all(indices, size);
    }
    for (place, (number, target)) in indices
        .iter()
        .zip(target.chunks_exact_mut(width))
        .enumerate()
    {
        let row = checked(*number, place, size)?;
        target.copy_from_slice(&table[row * width..][..width]);
    }
    Ok(())
}

/// Zeros, then each row added to the row of its number, in order.
pub(crate) fn scatter(
    indices: &[i32],
    source: &[f32],
    target: &mut [f32],
    size: usize,
    width: usize,
) -> Result<(), OutOfRange> {
    target.fill(0.0);
    if width == 0 {
        return check_all(indices, size);
    }
    for (place, (number, source)) in indices.iter().zip(source.chunks_exact(width)).enumerate() {
        let row = checked(*number, place, size)?;
        for (target, value) in target[row * width..][..width].iter_mut().zip(source) {
            *target += value;
        }
    }
    Ok(())
}

/// 1 at the place of each number, else 0; a number outside gives zeros.
pub(crate) fn one_hot(indices: &[i32], target: &mut [f32], depth: usize) {
    target.fill(0.0);
    if depth == 0 {
        return;
    }
    for (number, row) in indices.iter().zip(target.chunks_exact_mut(depth)) {
        if let Ok(place) = usize::try_from(*number)
            && let Some(value) = row.get_mut(place)
        {
            *value = 1.0;
        }
    }
}
