//! Reads the sources and makes one table of them.

use sandcast_audit::Digest;
use sandcast_estate::{Dataset, LandRequest, QueryError};
use sandcast_sandbox::{ControlPoint, Plugin};
use serde_json::json;

use super::line::{Halt, Line, Output, StageNotes, Stop, chain};
use super::load::Loaded;
use super::policy::{Question, ask};
use crate::report;

/// Everything that was read, as one table.
pub(crate) struct Connected {
    pub(crate) loaded: Loaded,
    pub(crate) sources: Vec<Dataset>,
    pub(crate) dataset: Dataset,
}

impl Output for Dataset {
    fn blobs(&self) -> Vec<Digest> {
        self.blobs
            .iter()
            .chain(&self.quarantine.blobs)
            .map(|blob| blob.digest)
            .collect()
    }
}

pub(crate) async fn connect(line: &Line<'_>, loaded: Loaded) -> Result<Connected, Halt> {
    let mut sources = Vec::with_capacity(line.sections().sources.len());
    for name in line.sections().sources.keys() {
        let stage = format!("connect {name}");
        let landed = line
            .stage(&stage, read(line, &loaded, name, &stage))
            .await?;
        sources.push(landed);
    }
    let dataset = match (&line.sections().dataset.sql, sources.as_slice()) {
        (Some(sql), _) => line.stage("query", query(line, sql, &sources)).await?,
        (None, [only]) => only.clone(),
        // The pipeline was refused if it has several sources and no query.
        (None, _) => {
            let stop = Stop::host("query", "there are several sources and no query".to_owned());
            return Err(Halt {
                stage: "query".to_owned(),
                stop,
            });
        }
    };
    line.write_report(|report| {
        report.dataset = Some(report::Dataset {
            name: line.sections().name.clone(),
            digest: dataset.digest.to_string(),
            rows: dataset.rows,
            columns: dataset.schema.fields().len() as u64,
            bytes: dataset.bytes,
            sql: dataset.sql.clone(),
        });
    });
    Ok(Connected {
        loaded,
        sources,
        dataset,
    })
}

async fn read(
    line: &Line<'_>,
    loaded: &Loaded,
    name: &str,
    stage: &str,
) -> Result<(Dataset, StageNotes), Stop> {
    let missing = || Stop::host(stage, format!("source `{name}` is not in the pipeline"));
    let section = line.sections().sources.get(name).ok_or_else(missing)?;
    let plugin = loaded.plugin(&section.plugin)?;
    let asked = Question {
        point: ControlPoint::DataRead,
        action: "read",
        resource: format!("source:{name}"),
        context: json!({ "plugin": plugin.reference().id, "connector": section.plugin }),
    };
    ask(line, loaded, stage, asked)
        .await?
        .without_obligations(stage)?;

    let versions = listed(line, plugin, &section.config, stage).await?;
    let key = versions.as_ref().map(|versions| key(line, stage, versions));
    let before = match &key {
        Some(key) => line.earlier::<Dataset>(stage, key).await?,
        None => None,
    };
    let cached = before.is_some();
    let dataset = match before {
        Some(kept) => kept.output,
        None => {
            let request = LandRequest {
                name: name.to_owned(),
                plugin: plugin.clone(),
                config: section.config.clone(),
                context: line.context(stage),
                progress: Some(line.rows(stage)),
            };
            let landed = line.workspace.estate().land(request).await;
            let landed = landed.map_err(|error| Stop::of(stage, &error))?;
            // The source may have changed since it was listed: what was read decides.
            if let Some(versions) = versions_of(&landed) {
                line.keep(stage, &self::key(line, stage, &versions), &landed)?;
            }
            landed
        }
    };
    line.see_dataset(stage, &dataset)?;

    let rows_in = dataset.rows + dataset.quarantine.rows;
    line.write_report(|report| {
        report.sources.push(report::Source {
            name: name.to_owned(),
            plugin: section.plugin.clone(),
            splits: dataset
                .sources
                .iter()
                .map(|source| source.splits.len() as u64)
                .sum(),
            rows_in,
            rows_landed: dataset.rows,
            rows_rejected: dataset.quarantine.rows,
            reasons: dataset.quarantine.reasons.clone(),
            digest: dataset.digest.to_string(),
        });
    });
    let message = match dataset.quarantine.rows {
        0 => format!("{} rows", report::count(rows_in)),
        rejected => format!(
            "{} rows, {} of them to quarantine",
            report::count(rows_in),
            report::count(rejected)
        ),
    };
    let notes = StageNotes {
        key,
        output: Some(dataset.digest),
        cached,
        rows_in: Some(rows_in),
        rows_out: Some(dataset.rows),
        rows_quarantined: Some(dataset.quarantine.rows),
        message,
    };
    Ok((dataset, notes))
}

/// The parts of a source with their versions, or nothing if one of them has none.
type Versions = Vec<(String, String)>;

async fn listed(
    line: &Line<'_>,
    plugin: &Plugin,
    config: &serde_json::Value,
    stage: &str,
) -> Result<Option<Versions>, Stop> {
    let stop = |error| Stop::of(stage, &error);
    let mut connector = plugin
        .connector(&line.context(stage), config)
        .await
        .map_err(stop)?;
    let splits = connector.partitions().await.map_err(stop)?;
    connector.finish().map_err(stop)?;
    Ok(splits
        .into_iter()
        .map(|split| Some((split.id, split.version?)))
        .collect())
}

fn versions_of(dataset: &Dataset) -> Option<Versions> {
    let splits = dataset.sources.iter().flat_map(|source| &source.splits);
    splits
        .map(|split| Some((split.id.clone(), split.version.clone()?)))
        .collect()
}

fn key(line: &Line<'_>, stage: &str, versions: &Versions) -> Digest {
    let parts = versions
        .iter()
        .flat_map(|(id, version)| [id.as_bytes(), version.as_bytes()]);
    line.key(stage, &parts.collect::<Vec<_>>())
}

async fn query(
    line: &Line<'_>,
    sql: &str,
    sources: &[Dataset],
) -> Result<(Dataset, StageNotes), Stop> {
    const STAGE: &str = "query";
    let name = &line.sections().name;
    let digests: Vec<&[u8]> = sources
        .iter()
        .map(|source| source.digest.as_bytes().as_slice())
        .collect();
    let key = line.key(STAGE, &digests);
    let kept = line
        .kept(STAGE, &key, async {
            let tables: Vec<(String, &Dataset)> = sources
                .iter()
                .map(|source| (source.name.clone(), source))
                .collect();
            let progress = Some(line.rows(STAGE));
            let queried = line
                .workspace
                .estate()
                .query(name, sql, &tables, progress)
                .await;
            queried.map_err(|error| match error {
                QueryError::Sql { .. } => line.rejected_at("dataset.sql", &chain(&error), None),
                error => Stop::of(STAGE, &error),
            })
        })
        .await?;
    let dataset = kept.output;
    line.see_dataset(STAGE, &dataset)?;
    let notes = StageNotes {
        key: Some(key),
        output: Some(dataset.digest),
        cached: kept.cached,
        rows_in: Some(sources.iter().map(|source| source.rows).sum()),
        rows_out: Some(dataset.rows),
        rows_quarantined: None,
        message: format!(
            "{} rows, {} columns",
            report::count(dataset.rows),
            dataset.schema.fields().len()
        ),
    };
    Ok((dataset, notes))
}
