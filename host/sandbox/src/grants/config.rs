//! The plugin's own configuration, by `wasi:config`: the top-level keys of its JSON. Always
//! granted, since it is what the operator wrote for it.

use std::collections::BTreeMap;

use wasmtime::component::{HasData, Linker};

use crate::bindings::adapter::wasi::config::store;
use crate::state::State;

/// The configuration of one instance.
#[derive(Debug, Default)]
pub(crate) struct ConfigState {
    values: BTreeMap<String, String>,
}

impl ConfigState {
    /// Text as it is, everything else as JSON. A configuration that is no object has no keys.
    pub(crate) fn new(config: &serde_json::Value) -> Self {
        let values = match config {
            serde_json::Value::Object(entries) => entries
                .iter()
                .map(|(key, value)| {
                    let text = match value {
                        serde_json::Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    (key.clone(), text)
                })
                .collect(),
            _ => BTreeMap::new(),
        };
        Self { values }
    }
}

/// Links `wasi:config/store`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    store::add_to_linker::<State, Config>(linker, |state| ConfigView(state))
}

struct Config;

impl HasData for Config {
    type Data<'a> = ConfigView<'a>;
}

/// What answers, on the state of an instance.
pub(crate) struct ConfigView<'a>(pub(crate) &'a mut State);

impl store::Host for ConfigView<'_> {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        self.0.ledger.count("config.get");
        self.0.ledger.saw(|| &key);
        Ok(Ok(self.0.config.values.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        self.0.ledger.count("config.get-all");
        let all = self.0.config.values.iter();
        Ok(Ok(all
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_and_the_rest_is_json() {
        let config = serde_json::json!({ "path": "/data", "header": true, "list": [1, 2] });
        let state = ConfigState::new(&config);
        assert_eq!(state.values["path"], "/data");
        assert_eq!(state.values["header"], "true");
        assert_eq!(state.values["list"], "[1,2]");
        assert!(
            ConfigState::new(&serde_json::json!("text"))
                .values
                .is_empty()
        );
    }
}
