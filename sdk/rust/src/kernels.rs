//! Statistics of columns.

/// How many rows are null.
#[must_use]
pub fn null_count(rows: usize, validity: Option<&[u8]>) -> u64 {
    let Some(bits) = validity else { return 0 };
    let validity = crate::columns::Validity::new(Some(bits));
    let mut valid = 0;
    for block in 0..rows.div_ceil(64) {
        let rest = rows - block * 64;
        let mask = if rest >= 64 {
            u64::MAX
        } else {
            (1 << rest) - 1
        };
        valid += u64::from((validity.word(block) & mask).count_ones());
    }
    rows as u64 - valid
}
