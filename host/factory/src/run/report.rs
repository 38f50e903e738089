//! Finishes the report of a run and writes it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::conduct::{ConductError, Judged};
use crate::report::{self, Plugin, ReportInput};
use crate::stages::Line;

/// Adds what the audit log knows of every plugin: time, memory, calls, denials.
pub(crate) fn add_usage(line: &Line<'_>, report: &mut ReportInput) -> Result<(), ConductError> {
    for seen in line.workspace.conduct().seen_in(&line.run)? {
        let did = seen.observation;
        let digest = did.plugin.digest.to_string();
        let same = report
            .plugins
            .iter_mut()
            .filter(|told| told.digest == digest);
        for told in same {
            told.guest_seconds += did.guest_seconds;
            told.peak_memory_bytes = told.peak_memory_bytes.max(did.peak_memory_bytes);
            told.denials += did.denials.values().sum::<u64>();
            add_calls(told, &did.calls);
        }
    }
    Ok(())
}

/// Adds what the conduct of every plugin came to.
pub(crate) fn add_conduct(judged: &Judged, report: &mut ReportInput) {
    for judged in &judged.plugins {
        let digest = judged.plugin.digest.to_string();
        let same = report
            .plugins
            .iter_mut()
            .filter(|told| told.digest == digest);
        for told in same {
            told.standing = judged.standing.map(|standing| standing.to_string());
            told.is_throttled = judged.throttled;
            told.deviations = judged
                .deviations
                .iter()
                .map(|deviation| report::Deviation {
                    place: deviation.place.to_string(),
                    measure: deviation.measure.clone(),
                    score: deviation.score,
                    reason: deviation.reason.clone(),
                })
                .collect();
        }
    }
}

/// Counts calls under their capability: the ledger names them `<capability>.<function>`.
fn add_calls(told: &mut Plugin, host_calls: &BTreeMap<String, u64>) {
    for (function, calls) in host_calls {
        let capability = function.split('.').next().unwrap_or_default();
        let told = told
            .capabilities
            .iter_mut()
            .find(|told| told.name == capability);
        told.into_iter()
            .for_each(|told| told.calls = told.calls.saturating_add(*calls));
    }
}

/// Writes the page and, beside it, what it was drawn from. Either is there as a whole, or not.
pub(crate) fn write(page: &Path, report: &ReportInput) -> io::Result<PathBuf> {
    let folder = page.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let data = serde_json::to_vec_pretty(report)?;
    write_whole(&page.with_extension("json"), &data)?;
    write_whole(page, report::render(report).as_bytes())?;
    Ok(page.to_path_buf())
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let written = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // It may not be there; then there is nothing to take away.
        let _ = fs::remove_file(&unfinished);
    }
    written
}
