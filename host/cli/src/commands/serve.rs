//! `sandcast serve`: predictions over HTTP.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc};

use clap::Args;
use sandcast_access::{Action, Resource, Store};
use sandcast_factory::Workspace;
use sandcast_sandbox::{Fairness, SandboxConfig, TimeSpan};
use sandcast_serve::{
    ModelSelector, Protection, RegistrySource, ServeConfig, ServeError, Server, TlsFiles,
    shutdown_signal,
};

use crate::{
    access,
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
  sandcast serve --address 0.0.0.0:8443 --tls-cert server.pem --tls-key server.key

The protocol is Open Inference Protocol v2 (REST), as KServe and Triton speak it; models that write
answer at POST /v1/completions, in the shape of OpenAI's (without streaming). A prediction runs
the adapter in its sandbox on the model that is loaded once. An alias that moves is followed, and so
are the rules of trust (--trust): a model that they do not trust any more stops answering.

Where access is set up (`sandcast access init`), a request needs a token in its field
`authorization: Bearer TOKEN`; /v2 and /v2/health do not. Another address than this machine's own
wants that and TLS, or --insecure. Ctrl-C finishes what has begun, then stops.";

/// Serve models over HTTP (Open Inference Protocol v2)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArguments {
    /// name, name@alias or name@version [default: every model of the registry]
    models: Vec<ModelSelector>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// A certificate, and those between it and an authority, in PEM; it is read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let others reach it without TLS, or without asking them for a token
    #[arg(long)]
    insecure: bool,
    /// The most rows of one request
    #[arg(long, value_name = "ROWS")]
    max_rows: Option<NonZeroUsize>,
    /// How often what was served, and what adapters did for it, is summed up in the audit log and
    /// judged; 1s to 1h
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = audit_interval)]
    audit_interval: TimeSpan,
    #[command(flatten)]
    device: DeviceArguments,
}

fn audit_interval(text: &str) -> Result<TimeSpan, String> {
    let interval: TimeSpan = text.parse()?;
    match interval.duration().as_secs() {
        1..=3600 => Ok(interval),
        _ => Err("it is 1s to 1h".to_owned()),
    }
}

pub(crate) async fn execute(
    arguments: &ServeArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let folder = state::nearest(global.state.as_deref())?;
    let gate = match Store::is_there(&folder) {
        false => None,
        true => {
            let resource = Resource::state();
            let allowed = access::demand(global, &folder, Action::Serve, &resource, None).await?;
            // Somebody may have begun to set access up, and no more: then it knows nobody.
            let is_set_up = allowed.gate.store().is_some();
            is_set_up.then(|| Arc::new(allowed.gate))
        }
    };
    let sandbox = SandboxConfig {
        // Many ask at one time, and one that asks for long should not be what the others wait for.
        fairness: Some(Fairness::of_this_machine()),
        ..arguments.device.sandbox(global)?
    };
    let workspace = Workspace::open_with(&folder, sandbox)?;
    let audit = workspace.audit().clone();
    let defaults = ServeConfig::default();
    let config = ServeConfig {
        address: arguments.address,
        models: arguments.models.clone(),
        max_rows: arguments.max_rows.unwrap_or(defaults.max_rows),
        audit_interval: arguments.audit_interval.duration(),
        ..defaults
    };
    let tls = arguments.tls_cert.clone().zip(arguments.tls_key.clone());
    let unguarded = folder.clone();
    let protection = Protection {
        gate,
        set_up: Some(Box::new(move || Store::is_set_up(&unguarded))),
        tls: tls.map(|(certificates, key)| TlsFiles { certificates, key }),
        insecure: arguments.insecure,
    };
    let scheme = if protection.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let mut source = RegistrySource::new(Arc::new(workspace));
    if global.trust.is_some() {
        let global = global.clone();
        source = source.under(Box::new(move || {
            let rules = global.rules_of_trust();
            rules.map_err(|failure| failure.report.to_string())
        }));
    }
    let server = Server::bind_protected(Arc::new(source), audit, config, protection)
        .await
        .map_err(|error| match error {
            ServeError::NoModels
            | ServeError::Model(_)
            | ServeError::Exposed { .. }
            | ServeError::Tls { .. } => Failure::from(error).into_rejection(),
            error => error.into(),
        })?;
    output.note(format_args!(
        "serving {} on {scheme}://{}  (Ctrl-C stops)",
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
