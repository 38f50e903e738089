//! A connector's guest, in the engine or in a process of its own: what it is asked, and what it says.

use tokio::time::timeout;

use crate::bindings::adapter::sandcast::plugin::types;
use crate::bindings::connector::exports::sandcast::plugin::connector as wire;
use crate::bindings::connector::{ConnectorPlugin, ConnectorPluginPre};
use crate::call::{CallError, Failure};
use crate::instance::{Begun, Instance, failure_of};
use crate::process::Question;
use crate::state::State;

/// What a guest says, or why it failed.
type Said<T> = Result<Result<T, Failure>, CallError>;

/// Where the guest of an instance is. Its batches are here either way.
pub(super) enum Guest {
    Here(ConnectorPlugin),
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
) -> Result<(ConnectorPlugin, Result<(), Failure>), CallError> {
    let Begun { store, patience } = instance.begin()?;
    let made = timeout(patience, async {
        let guest = pre.instantiate_async(&mut *store).await?;
        let answer = guest
            .sandcast_plugin_connector()
            .call_open(&mut *store, config)
            .await?;
        Ok((guest, answer))
    })
    .await;
    let (guest, answer) = instance.end(made)?;
    Ok((guest, answer.map_err(failure_of)))
}

pub(crate) async fn schema(
    instance: &mut Instance,
    guest: &ConnectorPlugin,
) -> Said<Vec<types::Field>> {
    let Begun { store, patience } = instance.begin()?;
    let guest = guest.sandcast_plugin_connector();
    let answer = timeout(patience, guest.call_schema(store)).await;
    Ok(instance.end(answer)?.map_err(failure_of))
}

pub(crate) async fn partitions(
    instance: &mut Instance,
    guest: &ConnectorPlugin,
) -> Said<Vec<wire::Split>> {
    let Begun { store, patience } = instance.begin()?;
    let guest = guest.sandcast_plugin_connector();
    let answer = timeout(patience, guest.call_partitions(store)).await;
    Ok(instance.end(answer)?.map_err(failure_of))
}

pub(crate) async fn scan(
    instance: &mut Instance,
    guest: &ConnectorPlugin,
    request: wire::ScanRequest,
) -> Said<()> {
    let Begun { store, patience } = instance.begin()?;
    let guest = guest.sandcast_plugin_connector();
    let answer = timeout(patience, guest.call_scan(store, &request)).await;
    Ok(instance.end(answer)?.map_err(failure_of))
}

pub(crate) async fn next(
    instance: &mut Instance,
    guest: &ConnectorPlugin,
) -> Said<Option<wire::Chunk>> {
    let Begun { store, patience } = instance.begin()?;
    let guest = guest.sandcast_plugin_connector();
    let answer = timeout(patience, guest.call_next(store)).await;
    Ok(instance.end(answer)?.map_err(failure_of))
}

pub(crate) async fn cursor(
    instance: &mut Instance,
    guest: &ConnectorPlugin,
) -> Said<Option<String>> {
    let Begun { store, patience } = instance.begin()?;
    let guest = guest.sandcast_plugin_connector();
    let answer = timeout(patience, guest.call_cursor(store)).await;
    Ok(Ok(instance.end(answer)?))
}
