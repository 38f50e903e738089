//! Float32 in formats whose numbers are finite, such as JSON: not a number and the infinities
//! are written as the strings `NaN`, `inf` and `-inf`.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Finite(f32),
    Named(String),
}

impl Number {
    fn new(value: f32) -> Self {
        if value.is_finite() {
            Number::Finite(value)
        } else {
            Number::Named(value.to_string())
        }
    }

    fn value<E: Error>(self) -> Result<f32, E> {
        match self {
            Number::Finite(value) => Ok(value),
            Number::Named(name) => match name.as_str() {
                "NaN" => Ok(f32::NAN),
                "inf" => Ok(f32::INFINITY),
                "-inf" => Ok(f32::NEG_INFINITY),
                other => Err(E::invalid_value(
                    Unexpected::Str(other),
                    &"a number, \"NaN\", \"inf\" or \"-inf\"",
                )),
            },
        }
    }
}

pub(in crate::graph) fn serialize<S: Serializer>(
    value: &f32,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    Number::new(*value).serialize(serializer)
}

pub(in crate::graph) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<f32, D::Error> {
    Number::deserialize(deserializer)?.value()
}

pub(in crate::graph) mod list {
    use super::*;

    pub(in crate::graph) fn serialize<S: Serializer>(
        values: &[f32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| Number::new(*value)))
    }

    pub(in crate::graph) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<f32>, D::Error> {
        Vec::<Number>::deserialize(deserializer)?
            .into_iter()
            .map(Number::value)
            .collect()
    }
}
