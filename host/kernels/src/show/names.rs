//! Names of things, as listings write them.

use std::fmt::Write as _;

use crate::graph::{DType, Extent, Symbol};
use crate::shape;

/// Bytes in hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Names one after the other, for a message.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// A name that a graph gave, in quotes, without control characters.
pub(super) fn quoted(name: &str) -> String {
    format!("{name:?}")
}

/// `f32[rows, 30]`.
pub(super) fn typed(dtype: DType, extents: &[Extent], symbols: &[Symbol]) -> String {
    format!("{}{}", short(dtype), shape::describe(extents, symbols))
}

/// The dtype in three characters.
pub(super) fn short(dtype: DType) -> &'static str {
    match dtype {
        DType::Float32 => "f32",
        DType::Int32 => "i32",
    }
}

/// The word for a plain enum value or a variant: `square-root`.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}

/// Numbers of a literal; of a long one, the first.
pub(super) fn numbers<T: std::fmt::Display>(values: &[T]) -> String {
    const SHOWN: usize = 6;
    if let [one] = values {
        return one.to_string();
    }
    let mut shown: Vec<String> = values.iter().take(SHOWN).map(T::to_string).collect();
    if values.len() > SHOWN {
        shown.push(format!("... {} in all", values.len()));
    }
    format!("[{}]", shown.join(", "))
}

/// A count with a unit of a thousand, a million and so on: `12.3 M`.
pub(super) fn scaled(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit.is_empty() {
        format!("{count} ")
    } else if value < 9.995 {
        format!("{value:.2} {unit}")
    } else if value < 99.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_figures() {
        let found = [
            0,
            7,
            999,
            1000,
            12_345,
            99_960,
            999_600,
            1_500_000_000,
            u64::MAX,
        ]
        .map(scaled);
        assert_eq!(
            found,
            [
                "0 ", "7 ", "999 ", "1.00 k", "12.3 k", "100 k", "1.00 M", "1.50 G", "18447 P"
            ]
        );
    }
}
