//! Which columns are learnt from: a list of them, or a mapping that says which and which not.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Which columns are learnt from. A list is short for `include`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FeatureSelection {
    /// Only these, in this order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<String>>,
    /// Not these.
    pub exclude: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    #[serde(default)]
    include: Option<Vec<String>>,
    #[serde(default)]
    exclude: Vec<String>,
}

struct FeatureVisitor;

impl<'de> Visitor<'de> for FeatureVisitor {
    type Value = FeatureSelection;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of columns, or a mapping with `include` or `exclude`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
        let include = Vec::deserialize(SeqAccessDeserializer::new(sequence))?;
        Ok(FeatureSelection {
            include: Some(include),
            exclude: Vec::new(),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let Mapping { include, exclude } = Mapping::deserialize(MapAccessDeserializer::new(map))?;
        Ok(FeatureSelection { include, exclude })
    }
}

impl<'de> Deserialize<'de> for FeatureSelection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FeatureVisitor)
    }
}

impl JsonSchema for FeatureSelection {
    fn schema_name() -> Cow<'static, str> {
        "FeatureSelection".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let columns = serde_json::json!({ "type": "array", "items": { "type": "string" } });
        json_schema!({
            "description": "Which columns are learnt from. A list is short for `include`.",
            "oneOf": [
                columns,
                {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": { "include": columns, "exclude": columns },
                },
            ],
        })
    }
}
