//! `sandcast serve`: predictions over HTTP.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc};

use clap::Args;
use sandcast_factory::Workspace;
use sandcast_serve::{
    ModelSelector, RegistrySource, ServeConfig, ServeError, Server, shutdown_signal,
};

use crate::{
    arguments::{DeviceArguments, GlobalArguments},
    failure::{Exit, Failure},
    output::Output,
    state,
    table::count,
};

const EXAMPLES: &str = "\
Examples:
  sandcast serve                                   every model of the registry, on 127.0.0.1:8080
  sandcast serve credit-risk@champion --address 127.0.0.1:9000
  curl localhost:8080/v2/models/credit-risk        inputs and outputs of a model
  curl localhost:8080/metrics                      for Prometheus

The protocol is Open Inference Protocol v2 (REST), as KServe and Triton speak it; models that write
answer at POST /v1/completions, in the shape of OpenAI's (without streaming). A prediction runs
the adapter in its sandbox on the model that is loaded once. An alias that moves is followed. There
is no authentication: another address than this machine's own is a decision. Ctrl-C finishes what has
begun, then stops.";

/// Serve models over HTTP (Open Inference Protocol v2)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArguments {
    /// name, name@alias or name@version [default: every model of the registry]
    models: Vec<ModelSelector>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// The most rows of one request
    #[arg(long, value_name = "ROWS")]
    max_rows: Option<NonZeroUsize>,
    #[command(flatten)]
    device: DeviceArguments,
}

pub(crate) async fn execute(
    arguments: &ServeArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let workspace = Workspace::open_with(
        &state::nearest(global.state.as_deref())?,
        arguments.device.sandbox(global)?,
    )?;
    let audit = workspace.audit().clone();
    let defaults = ServeConfig::default();
    let config = ServeConfig {
        address: arguments.address,
        models: arguments.models.clone(),
        max_rows: arguments.max_rows.unwrap_or(defaults.max_rows),
        ..defaults
    };
    let server = Server::bind(
        Arc::new(RegistrySource::new(Arc::new(workspace))),
        audit,
        config,
    )
    .await
    .map_err(|error| match error {
        ServeError::NoModels | ServeError::Model(_) => Failure::from(error).into_rejection(),
        error => error.into(),
    })?;
    output.note(format_args!(
        "serving {} on http://{}  (Ctrl-C stops)",
        server.models().join(", "),
        server.address()
    ));
    let summary = server.run(shutdown_signal()).await?;
    if output.wants_json() {
        output.json(&summary)?;
    } else {
        output.note(format_args!(
            "stopped after {} requests with {} rows, {} of them failed",
            count(summary.predictions),
            count(summary.rows),
            count(summary.failures)
        ));
    }
    Ok(Exit::Done)
}
