//! Bytes and durations as people write them: `256MiB`, `10m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes: `256MiB`, `64 KB`, `1024`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Multiples of a byte, largest binary ones first; the decimal ones are read only.
const BYTE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("", 1),
];

impl ByteSize {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 1,024 bytes.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// So many times 1,048,576 bytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// So many times 1,073,741,824 bytes.
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes, at most what an address can count.
    pub(crate) fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = BYTE_UNITS[..5]
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .copied()
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split_quantity(text);
        let explain =
            || format!("`{text}` is not a number of bytes; write it like 256MiB, 64KB or 1024");
        let factor = BYTE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(_, factor)| *factor)
            .ok_or_else(explain)?;
        let number: u64 = number.parse().map_err(|_| explain())?;
        number.checked_mul(factor).map(Self).ok_or_else(explain)
    }
}

/// A length of time: `500ms`, `60s`, `10m`, `2h`; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(Duration);

/// Units of time in milliseconds.
const TIME_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
    ("", 1_000),
];

impl TimeSpan {
    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many times as long.
    pub(crate) const fn times(self, factor: u32) -> Self {
        Self(self.0.saturating_mul(factor))
    }

    /// The same as the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (unit, factor) = TIME_UNITS[..5]
            .iter()
            .find(|(_, factor)| {
                millis >= u128::from(*factor) && millis.is_multiple_of(u128::from(*factor))
            })
            .copied()
            .unwrap_or(("ms", 1));
        write!(f, "{}{unit}", millis / u128::from(factor))
    }
}

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split_quantity(text);
        let explain =
            || format!("`{text}` is not a length of time; write it like 500ms, 60s, 10m or 2h");
        let factor = TIME_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or_else(explain)?;
        let number: u64 = number.parse().map_err(|_| explain())?;
        number
            .checked_mul(factor)
            .map(Self::from_millis)
            .ok_or_else(explain)
    }
}

/// The digits at the start, and the unit after them.
fn split_quantity(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

macro_rules! quantity_as_text_or_number {
    ($name:ident, $example:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct QuantityVisitor;
                impl Visitor<'_> for QuantityVisitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a quantity such as ", $example, ", or a number"))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        number.to_string().parse().map_err(E::custom)
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(QuantityVisitor)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": ["string", "integer"], "examples": [$example] })
            }
        }
    };
}

quantity_as_text_or_number!(ByteSize, "256MiB");
quantity_as_text_or_number!(TimeSpan, "10m");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_and_written_as_people_write_them() {
        for (text, bytes, written) in [
            ("256MiB", 256 << 20, "256MiB"),
            ("1 GiB", 1 << 30, "1GiB"),
            ("64kb", 64_000, "64000B"),
            ("1536", 1536, "1536B"),
            ("0", 0, "0B"),
        ] {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), written);
            assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
        }
        for text in ["", "MiB", "-1", "1.5GiB", "12 parsecs", "99999999999TiB"] {
            let message = text.parse::<ByteSize>().expect_err(text);
            assert!(message.contains("256MiB"), "{message}");
        }
    }

    #[test]
    fn time_is_read_and_written_as_people_write_it() {
        for (text, millis, written) in [
            ("500ms", 500, "500ms"),
            ("90", 90_000, "90s"),
            ("10m", 600_000, "10m"),
            ("2h", 7_200_000, "2h"),
        ] {
            let span: TimeSpan = text.parse().expect(text);
            assert_eq!(span.duration(), Duration::from_millis(millis), "{text}");
            assert_eq!(span.to_string(), written);
        }
        for text in ["", "-5", "10 minutes", "1e3", "300000000000d"] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_and_strings_are_both_accepted_in_json() {
        assert_eq!(
            serde_json::from_str::<ByteSize>("1024").expect("a number"),
            ByteSize(1024)
        );
        assert_eq!(
            serde_json::from_str::<TimeSpan>("\"2m\"").expect("text"),
            TimeSpan::from_secs(120)
        );
        assert!(serde_json::from_str::<ByteSize>("-3").is_err());
        assert!(serde_json::from_str::<ByteSize>("[1]").is_err());
    }
}
