//! `sandcast serve`: predictions over HTTP.

use std::net::SocketAddr;

use clap::Args;

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast serve                                   every model with an alias, on 127.0.0.1:8080
  sandcast serve credit-risk@champion --listen 0.0.0.0:9000
  curl localhost:8080/v2/models/credit-risk        inputs and outputs of a model
  curl localhost:8080/metrics                      for Prometheus

The protocol is Open Inference Protocol v2 (REST), as KServe and Triton speak it. A prediction runs
the adapter in its sandbox on the model that is loaded once. Ctrl-C finishes what has begun, then
stops.";

/// Serve models over HTTP (Open Inference Protocol v2)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArguments {
    /// name, name@alias or name@version [default: every model of the registry]
    models: Vec<String>,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

pub(crate) async fn execute(
    arguments: &ServeArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let _ = (
        &arguments.models,
        arguments.listen,
        state::nearest(global.state.as_deref())?,
        output,
    );
    unimplemented!()
}
