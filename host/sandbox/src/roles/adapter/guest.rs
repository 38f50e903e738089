//! An adapter's guest, in the engine or in a process of its own: what it is asked, and what it says.

use std::sync::Arc;

use wasmtime::component::Resource;

use crate::bindings::adapter::exports::sandcast::plugin::adapter as wire;
use crate::bindings::adapter::sandcast::plugin::models;
use crate::bindings::adapter::{AdapterPlugin, AdapterPluginPre};
use crate::call::{CallError, Failure};
use crate::columns::Batch;
use crate::grants::compute::{ModelHandle, TrainingHandle};
use crate::instance::{Instance, failure_of};
use crate::process::Question;
use crate::state::State;

/// What a guest says, or why it failed.
type Said<T> = Result<Result<T, Failure>, CallError>;

/// Where the guest of an instance is. What the host keeps for it is here either way.
pub(super) enum Guest {
    Here(Arc<AdapterPlugin>),
    /// The process belongs to the instance.
    Apart,
}

impl Guest {
    pub(super) async fn describe(&self, instance: &mut Instance) -> Said<wire::Description> {
        match self {
            Guest::Here(guest) => describe(instance, guest).await,
            Guest::Apart => instance.ask_apart(&Question::Describe, &()).await,
        }
    }

    pub(super) async fn declare(
        &self,
        instance: &mut Instance,
        asked: (models::Task, Vec<u32>, String),
    ) -> Said<wire::Declaration> {
        match self {
            Guest::Here(guest) => declare(instance, guest, asked).await,
            Guest::Apart => instance.ask_apart(&Question::Declare, &asked).await,
        }
    }

    pub(super) async fn train(
        &self,
        instance: &mut Instance,
        training: Resource<TrainingHandle>,
    ) -> Said<wire::Trained> {
        match self {
            Guest::Here(guest) => train(instance, guest, training).await,
            Guest::Apart => instance.ask_apart(&Question::Train, &training).await,
        }
    }

    pub(super) async fn predict(
        &self,
        instance: &mut Instance,
        asked: (Resource<ModelHandle>, Resource<Batch>),
    ) -> Said<Resource<Batch>> {
        match self {
            Guest::Here(guest) => predict(instance, guest, asked).await,
            Guest::Apart => instance.ask_apart(&Question::Predict, &asked).await,
        }
    }

    pub(super) async fn generate(
        &self,
        instance: &mut Instance,
        asked: (
            Resource<ModelHandle>,
            Resource<Batch>,
            wire::GenerationOptions,
        ),
    ) -> Said<Resource<Batch>> {
        match self {
            Guest::Here(guest) => generate(instance, guest, asked).await,
            Guest::Apart => instance.ask_apart(&Question::Generate, &asked).await,
        }
    }
}

/// Makes an instance.
pub(crate) async fn open(
    instance: &mut Instance,
    pre: &AdapterPluginPre<State>,
) -> Result<Arc<AdapterPlugin>, CallError> {
    let pre = pre.clone();
    let guest = instance.call(move |store| {
        Box::pin(async move { Ok(Arc::new(pre.instantiate_async(store).await?)) })
    });
    guest.await
}

pub(crate) async fn describe(
    instance: &mut Instance,
    guest: &Arc<AdapterPlugin>,
) -> Said<wire::Description> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move { guest.sandcast_plugin_adapter().call_describe(store).await })
    });
    Ok(Ok(answer.await?))
}

pub(crate) async fn declare(
    instance: &mut Instance,
    guest: &Arc<AdapterPlugin>,
    (task, cardinalities, hyperparameters): (models::Task, Vec<u32>, String),
) -> Said<wire::Declaration> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move {
            let guest = guest.sandcast_plugin_adapter();
            guest
                .call_declare(store, &task, &cardinalities, &hyperparameters)
                .await
        })
    });
    Ok(answer.await?.map_err(failure_of))
}

pub(crate) async fn train(
    instance: &mut Instance,
    guest: &Arc<AdapterPlugin>,
    training: Resource<TrainingHandle>,
) -> Said<wire::Trained> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move {
            guest
                .sandcast_plugin_adapter()
                .call_train(store, training)
                .await
        })
    });
    Ok(answer.await?.map_err(failure_of))
}

pub(crate) async fn predict(
    instance: &mut Instance,
    guest: &Arc<AdapterPlugin>,
    (model, rows): (Resource<ModelHandle>, Resource<Batch>),
) -> Said<Resource<Batch>> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move {
            guest
                .sandcast_plugin_adapter()
                .call_predict(store, model, rows)
                .await
        })
    });
    Ok(answer.await?.map_err(failure_of))
}

pub(crate) async fn generate(
    instance: &mut Instance,
    guest: &Arc<AdapterPlugin>,
    (model, prompts, options): (
        Resource<ModelHandle>,
        Resource<Batch>,
        wire::GenerationOptions,
    ),
) -> Said<Resource<Batch>> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move {
            let guest = guest.sandcast_plugin_adapter();
            guest.call_generate(store, model, prompts, &options).await
        })
    });
    Ok(answer.await?.map_err(failure_of))
}
