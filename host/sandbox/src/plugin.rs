//! A component that was checked and compiled, ready to make instances.

use arrow::datatypes::Schema;
use sandcast_audit::{PluginRef, RunId};

use crate::call::CallError;
use crate::grants::Grants;
use crate::inspect::Inspection;
use crate::manifest::Manifest;
use crate::roles::{Adapter, Connector, Policy, Validator};

/// On whose behalf an instance runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallContext {
    /// The run, if there is one.
    pub run: Option<RunId>,
    /// The stage, such as `train`.
    pub stage: String,
}

impl CallContext {
    /// A stage of a run, or of no run.
    pub fn new(run: Option<RunId>, stage: impl Into<String>) -> Self {
        Self { run, stage: stage.into() }
    }
}

/// A component that was checked and compiled. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    _private: (),
}

impl Plugin {
    /// Who it is, for records.
    pub fn reference(&self) -> &PluginRef {
        unimplemented!()
    }

    /// The name the pipeline gives it.
    pub fn name(&self) -> &str {
        unimplemented!()
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        unimplemented!()
    }

    /// What it may use.
    pub fn grants(&self) -> &Grants {
        unimplemented!()
    }

    /// What it is made of.
    pub fn inspection(&self) -> &Inspection {
        unimplemented!()
    }

    /// The same plugin, whose instances write no `calls-finished` record of their own; for a
    /// server that sums them up.
    pub fn unrecorded(&self) -> Plugin {
        unimplemented!()
    }

    /// A new instance that reads, configured.
    ///
    /// # Errors
    /// When it is no connector, cannot be instantiated or refuses the configuration.
    pub async fn connector(
        &self,
        context: &CallContext,
        config: &serde_json::Value,
    ) -> Result<Connector, CallError> {
        let _ = (context, config);
        unimplemented!()
    }

    /// A new instance that checks rows of a schema, configured.
    ///
    /// # Errors
    /// When it is no validator, cannot be instantiated or refuses the configuration.
    pub async fn validator(
        &self,
        context: &CallContext,
        config: &serde_json::Value,
        schema: &Schema,
    ) -> Result<Validator, CallError> {
        let _ = (context, config, schema);
        unimplemented!()
    }

    /// A new instance that decides, configured.
    ///
    /// # Errors
    /// When it is no policy, cannot be instantiated or refuses the configuration.
    pub async fn policy(
        &self,
        context: &CallContext,
        config: &serde_json::Value,
    ) -> Result<Policy, CallError> {
        let _ = (context, config);
        unimplemented!()
    }

    /// A new instance that trains and predicts.
    ///
    /// # Errors
    /// When it is no adapter or cannot be instantiated.
    pub async fn adapter(&self, context: &CallContext) -> Result<Adapter, CallError> {
        let _ = context;
        unimplemented!()
    }
}
