//! The JSON Schema of pipeline files, for editors.

use super::Sections;

/// The JSON Schema (draft 2020-12) of a pipeline file. The repository keeps a copy of it in
/// `host/factory/pipeline.schema.json`.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Sections).to_value()
}
