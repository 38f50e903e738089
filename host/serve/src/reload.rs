//! Following the registry while serving.

use std::sync::Arc;

use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::error::SourceError;
use crate::models::Reload;
use crate::telemetry::{ReloadLabels, ReloadOutcome};

/// Asks the registry what its aliases mean now. Versions that are no longer meant answer what is
/// under way and are freed then.
pub(crate) async fn reload_models(app: &App) -> Result<Reload, SourceError> {
    let result = app.models.reload().await;
    let count = |outcome| {
        app.telemetry
            .reloads
            .get_or_create(&ReloadLabels { outcome })
            .inc()
    };
    match &result {
        Ok(reload) if *reload == Reload::default() => {}
        Ok(reload) => {
            count(ReloadOutcome::Changed);
            app.telemetry.models.set(app.models.all().len() as i64);
            tracing::info!(loaded = ?reload.loaded, dropped = ?reload.dropped, "models changed");
        }
        Err(error) => {
            count(ReloadOutcome::Failed);
            tracing::warn!(%error, "models stay as they are");
        }
    }
    result
}

/// Does so at every interval, until dropped.
pub(crate) async fn keep_reloading(app: Arc<App>) {
    let Some(interval) = app.config.reload_interval else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        // A failure was logged and counted, and the next interval tries again.
        let _ = reload_models(&app).await;
    }
}
