//! A file per part of the protocol.

mod completions;
mod health;
mod infer;
mod metadata;
mod repository;
mod stats;

use axum::extract::Path;
use serde::Deserialize;

pub(crate) use completions::{CompletionRequest, completions};
pub(crate) use health::{live, metrics, model_ready, ready};
pub(crate) use infer::infer;
pub(crate) use metadata::{model_metadata, server_metadata};
pub(crate) use repository::{repository_index, repository_load, repository_unload};
pub(crate) use stats::{all_stats, model_stats};

/// The model that a path names.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) model: String,
    version: Option<String>,
}

type TargetPath = Path<Target>;
