//! What `/metrics` shows. Labels come from closed sets: routes, served models, status codes.

use std::fmt::Error;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::error::FailureCause;

/// Where metrics without a known model are counted.
pub(crate) const UNKNOWN_MODEL: &str = "unknown";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RouteLabels {
    pub(crate) method: &'static str,
    pub(crate) route: String,
    pub(crate) code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ModelLabels {
    pub(crate) model: String,
    pub(crate) version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FailureLabels {
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) cause: FailureCause,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReloadLabels {
    pub(crate) outcome: ReloadOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum ReloadOutcome {
    Changed,
    Failed,
}

type Histograms = Family<ModelLabels, Histogram, fn() -> Histogram>;

/// Every metric of a server, with the registry that writes them out.
pub(crate) struct Telemetry {
    registry: Registry,
    pub(crate) http_requests: Family<RouteLabels, Counter>,
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) rows: Family<ModelLabels, Counter>,
    pub(crate) failures: Family<FailureLabels, Counter>,
    pub(crate) request_seconds: Histograms,
    pub(crate) predict_seconds: Histograms,
    pub(crate) in_flight: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) rejected: Counter,
    pub(crate) connections: Gauge,
    pub(crate) instances: Gauge,
    pub(crate) instances_limit: Gauge,
    pub(crate) models: Gauge,
    pub(crate) models_refused: Gauge,
    pub(crate) reloads: Family<ReloadLabels, Counter>,
    pub(crate) start_seconds: Gauge<f64, AtomicU64>,
}

/// From a tenth of a millisecond, which an empty handler takes, to the request timeout.
fn latencies() -> Histogram {
    Histogram::new([
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
        2.5, 5.0, 10.0, 30.0,
    ])
}

impl Telemetry {
    pub(crate) fn new() -> Self {
        let new_histograms = || Histograms::new_with_constructor(latencies as fn() -> Histogram);
        let telemetry = Self {
            registry: Registry::with_prefix("sandcast"),
            http_requests: Family::default(),
            requests: Family::default(),
            rows: Family::default(),
            failures: Family::default(),
            request_seconds: new_histograms(),
            predict_seconds: new_histograms(),
            in_flight: Gauge::default(),
            queued: Gauge::default(),
            rejected: Counter::default(),
            connections: Gauge::default(),
            instances: Gauge::default(),
            instances_limit: Gauge::default(),
            models: Gauge::default(),
            models_refused: Gauge::default(),
            reloads: Family::default(),
            start_seconds: Gauge::default(),
        };
        telemetry.register()
    }

    fn register(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "build",
            "The program that answers",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "http_requests",
            "Requests by route and status",
            self.http_requests.clone(),
        );
        registry.register(
            "inference_requests",
            "Inference requests by model, version and status",
            self.requests.clone(),
        );
        registry.register(
            "inference_rows",
            "Rows that were predicted",
            self.rows.clone(),
        );
        registry.register(
            "inference_failures",
            "Failed predictions by cause, such as a trap or a timeout in the sandbox",
            self.failures.clone(),
        );
        registry.register_with_unit(
            "inference_request_duration",
            "From the head of an inference request to its answer",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        registry.register_with_unit(
            "inference_predict_duration",
            "In the adapter's sandbox, its instance included",
            Unit::Seconds,
            self.predict_seconds.clone(),
        );
        registry.register(
            "inference_in_flight",
            "Inference requests that are being answered or wait for it",
            self.in_flight.clone(),
        );
        registry.register(
            "inference_queued",
            "Inference requests that wait for a sandbox instance",
            self.queued.clone(),
        );
        registry.register(
            "inference_rejected",
            "Inference requests sent away because too many were waiting",
            self.rejected.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "sandbox_instances",
            "Adapter instances that are predicting",
            self.instances.clone(),
        );
        registry.register(
            "sandbox_instances_limit",
            "The most adapter instances that may predict at a time",
            self.instances_limit.clone(),
        );
        registry.register(
            "models",
            "Model versions that are loaded",
            self.models.clone(),
        );
        registry.register(
            "models_refused",
            "Model versions that are loaded and may not run, as they were looked at last",
            self.models_refused.clone(),
        );
        registry.register(
            "reloads",
            "Reloads that changed a model or failed",
            self.reloads.clone(),
        );
        registry.register_with_unit(
            "start_time",
            "When the server began, since 1970",
            Unit::Seconds,
            self.start_seconds.clone(),
        );
        self
    }

    /// Everything in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> Result<String, Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Holds a gauge one higher for as long as it lives.
pub(crate) struct Raised<'a>(&'a Gauge);

impl<'a> Raised<'a> {
    pub(crate) fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
