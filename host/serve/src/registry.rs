//! The factory's registry as the source of models.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use sandcast_audit::AuditError;
use sandcast_factory::registry::{DEFAULT_ALIAS, ModelVersion};
use sandcast_factory::{
    Generated, InferenceError, Predicted, RegistryError, ServedModel, Workspace,
};
use sandcast_sandbox::GenerationOptions;

use crate::config::ModelSelector;
use crate::error::{FailureCause, PredictError, SourceError};
use crate::models::{ModelSource, Predict, ServableModel};
use crate::standing::StandingWatch;
use crate::trust::{ReadRules, TrustWatch};

/// The models that a workspace has registered. A prediction runs the version's adapter in its
/// sandbox, on weights that were loaded once.
#[derive(Clone)]
pub struct RegistrySource {
    workspace: Arc<Workspace>,
    trust: Option<Arc<TrustWatch>>,
}

impl RegistrySource {
    /// The models of this workspace.
    pub fn new(workspace: Arc<Workspace>) -> Self {
        Self {
            workspace,
            trust: None,
        }
    }

    /// The same, whose models are held to the operator's rules of trust as they are while it serves.
    #[must_use]
    pub fn under(self, read: ReadRules) -> Self {
        let watch = TrustWatch::new(Arc::clone(&self.workspace), read);
        Self {
            trust: Some(Arc::new(watch)),
            ..self
        }
    }

    /// The number of the rules of trust that are in force.
    async fn generation(&self, model: &str) -> Result<u64, SourceError> {
        let Some(trust) = self.trust.clone() else {
            return Ok(0);
        };
        let failed = |reason: String| SourceError {
            model: model.to_owned(),
            reason,
        };
        tokio::task::spawn_blocking(move || trust.generation())
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)
    }

    /// Asks the registry off the runtime's threads: it reads a database.
    async fn ask<T: Send + 'static>(
        &self,
        model: &str,
        question: impl FnOnce(&Workspace) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let failed = |reason: String| SourceError {
            model: model.to_owned(),
            reason,
        };
        let workspace = Arc::clone(&self.workspace);
        tokio::task::spawn_blocking(move || question(&workspace))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))
    }

    async fn version(&self, selector: &ModelSelector) -> Result<ModelVersion, SourceError> {
        let ModelSelector { name, reference } = selector.clone();
        self.ask(&selector.to_string(), move |workspace| {
            workspace.registry().resolve(&name, reference.as_deref())
        })
        .await
    }

    async fn servable(&self, name: &str, version: u64) -> Result<ServableModel, SourceError> {
        let reference = Some(version.to_string());
        let selector = ModelSelector {
            name: name.to_owned(),
            reference,
        };
        let version = self.version(&selector).await?;
        // Before it is loaded, so that rules that change meanwhile are looked at again.
        let generation = self.generation(&selector.to_string()).await?;
        let served = ServedModel::load_to_serve(&self.workspace, &version)
            .await
            .map_err(|error| SourceError {
                model: selector.to_string(),
                reason: error.to_string(),
            })?;
        Ok(ServableModel {
            facts: facts(&version),
            threshold: version.evaluation.threshold.unwrap_or(0.5),
            name: version.model.clone(),
            version: version.version,
            task: version.task.clone(),
            predictor: Arc::new(Sandboxed {
                standing: StandingWatch::new(
                    Arc::clone(&self.workspace),
                    served.clone(),
                    self.trust.clone(),
                    generation,
                ),
                served,
            }),
        })
    }
}

fn facts(version: &ModelVersion) -> BTreeMap<String, String> {
    let adapter = &version.adapter;
    BTreeMap::from([
        (
            "adapter".to_owned(),
            format!("{} {}", adapter.id, adapter.version),
        ),
        ("adapter_digest".to_owned(), adapter.digest.to_string()),
        ("model_digest".to_owned(), version.artifact.to_string()),
        ("data_digest".to_owned(), version.lineage.data.to_string()),
        (
            "lineage_digest".to_owned(),
            version.lineage.digest().to_string(),
        ),
        ("run".to_owned(), version.run.to_string()),
        ("created".to_owned(), version.created.clone()),
    ])
}

impl ModelSource for RegistrySource {
    fn names(&self) -> BoxFuture<'_, Result<Vec<String>, SourceError>> {
        let names = self.ask("*", |workspace| {
            let models = workspace.registry().models()?;
            // The others have nothing that their name means.
            let with_champion = models
                .into_iter()
                .filter(|it| it.aliases.contains_key(DEFAULT_ALIAS));
            Ok(with_champion.map(|model| model.name).collect())
        });
        names.boxed()
    }

    fn resolve<'a>(
        &'a self,
        selector: &'a ModelSelector,
    ) -> BoxFuture<'a, Result<u64, SourceError>> {
        async { Ok(self.version(selector).await?.version) }.boxed()
    }

    fn load<'a>(
        &'a self,
        name: &'a str,
        version: u64,
    ) -> BoxFuture<'a, Result<ServableModel, SourceError>> {
        self.servable(name, version).boxed()
    }
}

/// A model whose adapter gets an instance of its own for each prediction.
struct Sandboxed {
    served: ServedModel,
    standing: StandingWatch,
}

impl Predict for Sandboxed {
    fn refusal(&self) -> BoxFuture<'_, Option<String>> {
        async { self.standing.check().await.err().map(|error| error.message) }.boxed()
    }

    fn settle(&self, last: bool) -> Result<(), AuditError> {
        self.served.settle(last)?;
        let version = self.served.version();
        let (model, version) = (&version.model, version.version);
        match self.served.judge() {
            Ok(warnings) => {
                for warning in warnings {
                    tracing::warn!(%model, version, "{warning}");
                }
            }
            // It is on record; judged it is the next time.
            Err(error) => {
                tracing::error!(%error, %model, version, "what a served model did cannot be judged")
            }
        }
        Ok(())
    }

    fn predict<'a>(
        &'a self,
        rows: &'a RecordBatch,
    ) -> BoxFuture<'a, Result<Predicted, PredictError>> {
        async {
            self.standing.check().await?;
            Ok(self.served.predict(rows).await?)
        }
        .boxed()
    }

    fn generate<'a>(
        &'a self,
        prompts: &'a [String],
        options: &'a GenerationOptions,
    ) -> BoxFuture<'a, Result<Vec<Generated>, PredictError>> {
        async {
            self.standing.check().await?;
            Ok(self.served.generate(prompts, options, None).await?)
        }
        .boxed()
    }
}

impl From<InferenceError> for PredictError {
    fn from(error: InferenceError) -> Self {
        let cause = match error {
            InferenceError::Call(error) => return error.into(),
            InferenceError::Rows(_) | InferenceError::DoesNotWrite { .. } => FailureCause::Input,
            InferenceError::Denied { .. }
            | InferenceError::Conduct { .. }
            | InferenceError::Untrusted { .. } => FailureCause::Refused,
            _ => FailureCause::Internal,
        };
        Self {
            cause,
            message: error.to_string(),
        }
    }
}
