use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, TimestampMicrosecondArray,
};
use arrow::datatypes::{Date32Type, Field, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use sandcast_sandbox::Kind;

use super::distinct::Distinct;
use super::frequent::Frequent;
use super::spread::{Bins, Spread};
use super::{ColumnProfile, ValueCount};

/// Characters of a value that are shown.
const VALUE_SHOWN: usize = 200;

/// A column while its values come in.
pub(super) struct Column {
    name: String,
    kind: Kind,
    count: u64,
    nulls: u64,
    distinct: Distinct,
    values: Values,
    spread: Option<Spread>,
    bins: Option<Bins>,
}

/// The values themselves: texts, or numbers of 64 bits in an order of their own.
enum Values {
    Texts {
        frequent: Frequent<String>,
        bounds: Option<(String, String)>,
    },
    Numbers {
        frequent: Frequent<i64>,
        bounds: Option<(i64, i64)>,
    },
}

impl Column {
    /// None for a type that no dataset has.
    pub(super) fn new(field: &Field, range: Option<(f64, f64)>) -> Option<Self> {
        let kind = Kind::of(field.data_type())?;
        let values = match kind {
            Kind::Utf8 => Values::Texts {
                frequent: Frequent::new(),
                bounds: None,
            },
            _ => Values::Numbers {
                frequent: Frequent::new(),
                bounds: None,
            },
        };
        Some(Self {
            name: field.name().clone(),
            kind,
            count: 0,
            nulls: 0,
            distinct: Distinct::new(),
            values,
            spread: matches!(kind, Kind::Int64 | Kind::Float64).then(Spread::new),
            bins: range.and_then(Bins::new),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn add(&mut self, values: &ArrayRef) {
        self.nulls += values.null_count() as u64;
        self.count += (values.len() - values.null_count()) as u64;
        match self.kind {
            Kind::Utf8 => values
                .as_string::<i32>()
                .iter()
                .flatten()
                .for_each(|text| self.add_text(text)),
            Kind::Boolean => values
                .as_boolean()
                .iter()
                .flatten()
                .for_each(|value| self.add_key(i64::from(value))),
            Kind::Int64 => values
                .as_primitive::<Int64Type>()
                .iter()
                .flatten()
                .for_each(|value| {
                    self.add_key(value);
                    self.add_number(value as f64);
                }),
            Kind::Float64 => values
                .as_primitive::<Float64Type>()
                .iter()
                .flatten()
                .for_each(|value| {
                    self.add_key(key_of(value));
                    self.add_number(value);
                }),
            Kind::Date32 => values
                .as_primitive::<Date32Type>()
                .iter()
                .flatten()
                .for_each(|value| {
                    self.add_key(i64::from(value));
                    self.add_number(f64::from(value));
                }),
            Kind::TimestampUs => {
                values
                    .as_primitive::<TimestampMicrosecondType>()
                    .iter()
                    .flatten()
                    .for_each(|value| {
                        self.add_key(value);
                        self.add_number(value as f64);
                    });
            }
        }
    }

    fn add_text(&mut self, text: &str) {
        self.distinct.add(&text);
        let Values::Texts { frequent, bounds } = &mut self.values else {
            return;
        };
        frequent.add(text);
        match bounds {
            Some((low, high)) => {
                if text < low.as_str() {
                    text.clone_into(low);
                } else if text > high.as_str() {
                    text.clone_into(high);
                }
            }
            None => *bounds = Some((text.to_owned(), text.to_owned())),
        }
    }

    fn add_key(&mut self, key: i64) {
        self.distinct.add(&key);
        let Values::Numbers { frequent, bounds } = &mut self.values else {
            return;
        };
        frequent.add(&key);
        let (low, high) = bounds.get_or_insert((key, key));
        *low = key.min(*low);
        *high = key.max(*high);
    }

    fn add_number(&mut self, value: f64) {
        if let Some(spread) = &mut self.spread {
            spread.add(value);
        }
        if let Some(bins) = &mut self.bins {
            bins.add(value);
        }
    }

    pub(super) fn finish(self) -> ColumnProfile {
        let kind = self.kind;
        let (distinct, distinct_exact) = self.distinct.count();
        let (bounds, top, top_exact) = match self.values {
            Values::Texts { frequent, bounds } => {
                let (top, exact) = frequent.top();
                (
                    bounds.map(|(low, high)| (shown(&low), shown(&high))),
                    top.iter()
                        .map(|(text, count)| (shown(text), *count))
                        .collect::<Vec<_>>(),
                    exact,
                )
            }
            Values::Numbers { frequent, bounds } => {
                let (top, exact) = frequent.top();
                let text = |key| text_of(kind, key);
                (
                    bounds.map(|(low, high)| (text(low), text(high))),
                    top.iter()
                        .map(|(key, count)| (text(*key), *count))
                        .collect(),
                    exact,
                )
            }
        };
        let (min, max) = bounds.unzip();
        let unit = if kind == Kind::TimestampUs { 1e6 } else { 1.0 };
        ColumnProfile {
            name: self.name,
            kind,
            count: self.count,
            nulls: self.nulls,
            distinct,
            distinct_exact,
            min,
            max,
            numbers: self.spread.map(Spread::finish),
            top: top
                .into_iter()
                .map(|(value, count)| ValueCount { value, count })
                .collect(),
            top_exact,
            histogram: self.bins.map(|bins| bins.finish(unit)),
        }
    }
}

/// A float as a number whose order is that of the floats; one for both zeros, one for all NaNs.
fn key_of(value: f64) -> i64 {
    let value = if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0
    };
    let bits = value.to_bits().cast_signed();
    bits ^ (((bits >> 63).cast_unsigned()) >> 1).cast_signed()
}

fn float_of(key: i64) -> f64 {
    f64::from_bits((key ^ (((key >> 63).cast_unsigned()) >> 1).cast_signed()).cast_unsigned())
}

fn text_of(kind: Kind, key: i64) -> String {
    let array: ArrayRef = match kind {
        Kind::Float64 => return float_of(key).to_string(),
        Kind::Boolean => Arc::new(BooleanArray::from(vec![key != 0])),
        Kind::Date32 => Arc::new(Date32Array::from(vec![key as i32])),
        Kind::TimestampUs => {
            Arc::new(TimestampMicrosecondArray::from(vec![key]).with_timezone("UTC"))
        }
        Kind::Int64 | Kind::Utf8 => return key.to_string(),
    };
    array_value_to_string(&array, 0).unwrap_or_else(|_| key.to_string())
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(VALUE_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_floats_keep_their_order_and_their_values() {
        let values = [
            f64::NEG_INFINITY,
            -1e300,
            -1.5,
            -1e-300,
            0.0,
            1e-300,
            1.5,
            1e300,
            f64::INFINITY,
            f64::NAN,
        ];
        let keys = values.map(key_of);
        assert!(keys.is_sorted());
        for (value, key) in values.into_iter().zip(keys) {
            assert!(float_of(key) == value || value.is_nan());
        }
        assert_eq!(key_of(-0.0), key_of(0.0));
    }

    #[test]
    fn dates_and_times_are_shown_as_such() {
        assert_eq!(text_of(Kind::Date32, 20_000), "2024-10-04");
        assert_eq!(text_of(Kind::TimestampUs, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text_of(Kind::Boolean, 1), "true");
        assert_eq!(text_of(Kind::Float64, key_of(-2.5)), "-2.5");
    }
}
