//! A connector's guest, in the engine or in a process of its own: what it is asked, and what it says.

use std::sync::Arc;

use crate::bindings::adapter::sandcast::plugin::types;
use crate::bindings::connector::exports::sandcast::plugin::connector as wire;
use crate::bindings::connector::{ConnectorPlugin, ConnectorPluginPre};
use crate::call::{CallError, Failure};
use crate::instance::{Instance, failure_of};
use crate::process::Question;
use crate::state::State;

/// What a guest says, or why it failed.
type Said<T> = Result<Result<T, Failure>, CallError>;

/// Where the guest of an instance is. Its batches are here either way.
pub(super) enum Guest {
    Here(Arc<ConnectorPlugin>),
    /// The process belongs to the instance.
    Apart,
}

impl Guest {
    pub(super) async fn schema(&self, instance: &mut Instance) -> Said<Vec<types::Field>> {
        match self {
            Guest::Here(guest) => schema(instance, guest).await,
            Guest::Apart => instance.ask_apart(&Question::Schema, &()).await,
        }
    }

    pub(super) async fn partitions(&self, instance: &mut Instance) -> Said<Vec<wire::Split>> {
        match self {
            Guest::Here(guest) => partitions(instance, guest).await,
            Guest::Apart => instance.ask_apart(&Question::Partitions, &()).await,
        }
    }

    pub(super) async fn scan(
        &self,
        instance: &mut Instance,
        request: wire::ScanRequest,
    ) -> Said<()> {
        match self {
            Guest::Here(guest) => scan(instance, guest, request).await,
            Guest::Apart => instance.ask_apart(&Question::Scan, &request).await,
        }
    }

    pub(super) async fn next(&self, instance: &mut Instance) -> Said<Option<wire::Chunk>> {
        match self {
            Guest::Here(guest) => next(instance, guest).await,
            Guest::Apart => instance.ask_apart(&Question::Next, &()).await,
        }
    }

    pub(super) async fn cursor(&self, instance: &mut Instance) -> Said<Option<String>> {
        match self {
            Guest::Here(guest) => cursor(instance, guest).await,
            Guest::Apart => instance.ask_apart(&Question::Cursor, &()).await,
        }
    }
}

/// Makes an instance and gives it its configuration.
pub(crate) async fn configure(
    instance: &mut Instance,
    pre: &ConnectorPluginPre<State>,
    config: &str,
) -> Result<(Arc<ConnectorPlugin>, Result<(), Failure>), CallError> {
    let (pre, config) = (pre.clone(), config.to_owned());
    let made = instance.call(move |store| {
        Box::pin(async move {
            let guest = pre.instantiate_async(&mut *store).await?;
            let connector = guest.sandcast_plugin_connector();
            let answer = connector.call_open(&mut *store, &config).await?;
            Ok((Arc::new(guest), answer.map_err(failure_of)))
        })
    });
    made.await
}

pub(crate) async fn schema(
    instance: &mut Instance,
    guest: &Arc<ConnectorPlugin>,
) -> Said<Vec<types::Field>> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move { guest.sandcast_plugin_connector().call_schema(store).await })
    });
    Ok(answer.await?.map_err(failure_of))
}

pub(crate) async fn partitions(
    instance: &mut Instance,
    guest: &Arc<ConnectorPlugin>,
) -> Said<Vec<wire::Split>> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        let asked = async move {
            guest
                .sandcast_plugin_connector()
                .call_partitions(store)
                .await
        };
        Box::pin(asked)
    });
    Ok(answer.await?.map_err(failure_of))
}

pub(crate) async fn scan(
    instance: &mut Instance,
    guest: &Arc<ConnectorPlugin>,
    request: wire::ScanRequest,
) -> Said<()> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move {
            guest
                .sandcast_plugin_connector()
                .call_scan(store, &request)
                .await
        })
    });
    Ok(answer.await?.map_err(failure_of))
}

pub(crate) async fn next(
    instance: &mut Instance,
    guest: &Arc<ConnectorPlugin>,
) -> Said<Option<wire::Chunk>> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move { guest.sandcast_plugin_connector().call_next(store).await })
    });
    Ok(answer.await?.map_err(failure_of))
}

pub(crate) async fn cursor(
    instance: &mut Instance,
    guest: &Arc<ConnectorPlugin>,
) -> Said<Option<String>> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move { guest.sandcast_plugin_connector().call_cursor(store).await })
    });
    Ok(Ok(answer.await?))
}
