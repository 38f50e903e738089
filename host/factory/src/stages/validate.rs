//! Shows every row to the checks, puts aside those that fail, and describes the rest.

use std::collections::BTreeMap;

use sandcast_audit::Digest;
use sandcast_estate::{Check, ColumnProfile, Profile, RuleOutcome, Validation};
use sandcast_sandbox::Severity;
use serde::{Deserialize, Serialize};

use super::connect::Connected;
use super::line::{Halt, Line, Output, StageNotes, Stop};
use crate::report;

/// The name of the stage.
const STAGE: &str = "validate";

/// Rows that can be trusted.
pub(crate) struct Validated {
    pub(crate) connected: Connected,
    pub(crate) validation: Validation,
}

#[derive(Serialize, Deserialize)]
struct ValidateOutput {
    validation: Validation,
    profile: Profile,
}

impl Output for ValidateOutput {
    fn blobs(&self) -> Vec<Digest> {
        self.validation.passed.blobs()
    }
}

pub(crate) async fn validate(line: &Line<'_>, connected: Connected) -> Result<Validated, Halt> {
    let validation = line
        .stage(STAGE, async {
            let dataset = &connected.dataset;
            let key = line.key(STAGE, &[dataset.digest.as_bytes()]);
            let kept = line.kept(STAGE, &key, check(line, &connected)).await?;
            let ValidateOutput {
                validation,
                profile,
            } = kept.output;
            let balanced = validation.rows_in == dataset.rows
                && validation.rows_passed == validation.passed.rows
                && validation.rows_in == validation.rows_passed + validation.rows_quarantined;
            if !balanced {
                let Validation {
                    rows_in,
                    rows_passed,
                    rows_quarantined,
                    ..
                } = validation;
                return Err(Stop::host(
                    STAGE,
                    format!(
                        "of {} rows, {rows_in} were checked, {rows_passed} passed and \
                         {rows_quarantined} were put aside: rows were lost",
                        dataset.rows
                    ),
                ));
            }
            line.see_dataset(STAGE, &validation.passed)?;
            tell(line, &validation, &profile);
            let refusals = refusals(&validation.rules);
            if !refusals.is_empty() {
                return Err(Stop::Rejected(refusals));
            }
            if validation.rows_passed == 0 {
                return Err(Stop::rejected(
                    "no row passed the checks, so nothing can be learnt",
                ));
            }
            let notes = StageNotes {
                key: Some(key),
                output: Some(validation.passed.digest),
                cached: kept.cached,
                rows_in: Some(validation.rows_in),
                rows_out: Some(validation.rows_passed),
                rows_quarantined: Some(validation.rows_quarantined),
                message: format!(
                    "{} of {} rows passed {} rules",
                    report::count(validation.rows_passed),
                    report::count(validation.rows_in),
                    validation.rules.len()
                ),
            };
            Ok((validation, notes))
        })
        .await?;
    Ok(Validated {
        connected,
        validation,
    })
}

async fn check(line: &Line<'_>, connected: &Connected) -> Result<ValidateOutput, Stop> {
    let estate = line.workspace.estate();
    let mut checks = Vec::with_capacity(line.sections().validate.len());
    for (index, section) in line.sections().validate.iter().enumerate() {
        checks.push(Check {
            name: format!("validate[{index}]"),
            plugin: connected.loaded.plugin(&section.plugin)?.clone(),
            config: section.config.clone(),
        });
    }
    let dataset = &connected.dataset;
    let context = line.context(STAGE);
    let validated = estate
        .validate(dataset, &checks, &context, Some(line.rows(STAGE)))
        .await;
    let validation = validated.map_err(|error| Stop::of(STAGE, &error))?;
    let profiled = estate
        .profile(&validation.passed, Some(line.rows(STAGE)))
        .await;
    let profile = profiled.map_err(|error| Stop::of(STAGE, &error))?;
    Ok(ValidateOutput {
        validation,
        profile,
    })
}

/// A sentence for every rule that does not hold and is not a mere warning.
fn refusals(rules: &[RuleOutcome]) -> Vec<String> {
    let failed = rules
        .iter()
        .filter(|outcome| !outcome.verdict.passed && outcome.rule.severity == Severity::Error);
    failed
        .map(|outcome| {
            let (rule, verdict) = (&outcome.rule, &outcome.verdict);
            format!(
                "rule `{}` ({}): {} of {} rows failed, at least {} must pass: {}",
                rule.id,
                rule.description,
                verdict.rows_failed,
                verdict.rows_checked,
                share(rule.mostly),
                verdict.message
            )
        })
        .collect()
}

fn share(mostly: f64) -> String {
    let percent = format!("{:.3}", mostly * 100.0);
    format!("{}%", percent.trim_end_matches('0').trim_end_matches('.'))
}

fn tell(line: &Line<'_>, validation: &Validation, profile: &Profile) {
    let rules = validation.rules.iter().map(|outcome| report::Rule {
        id: outcome.rule.id.clone(),
        description: outcome.rule.description.clone(),
        columns: outcome.rule.columns.clone(),
        severity: match outcome.rule.severity {
            Severity::Warning => "warning".to_owned(),
            Severity::Error => "error".to_owned(),
        },
        mostly: Some(outcome.rule.mostly),
        rows_checked: outcome.verdict.rows_checked,
        rows_failed: outcome.verdict.rows_failed,
        passed: outcome.verdict.passed,
        observed: outcome.verdict.message.clone(),
    });
    let told = report::Validation {
        rows_in: validation.rows_in,
        rows_passed: validation.rows_passed,
        rows_quarantined: validation.rows_quarantined,
        reasons: validation.passed.quarantine.reasons.clone(),
        rules: rules.collect(),
        digest: validation.passed.digest.to_string(),
    };
    let uses = uses(line);
    let columns = profile
        .columns
        .iter()
        .map(|column| told_of(column, &uses))
        .collect();
    line.write_report(|report| {
        report.validation = Some(told);
        report.profile = columns;
    });
}

/// What columns are used for, as far as the pipeline says. Features are added once they are known.
fn uses(line: &Line<'_>) -> BTreeMap<String, Vec<String>> {
    let sections = line.sections();
    let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |column: &String, what: &str| {
        uses.entry(column.clone())
            .or_default()
            .push(what.to_owned());
    };
    let target = match sections.train.task.has_target() {
        true => "target",
        false => "judged by",
    };
    sections
        .train
        .target
        .iter()
        .for_each(|column| add(column, target));
    sections
        .train
        .weight
        .iter()
        .for_each(|column| add(column, "weight"));
    sections
        .evaluate
        .slices
        .iter()
        .for_each(|column| add(column, "slice"));
    uses
}

fn told_of(column: &ColumnProfile, uses: &BTreeMap<String, Vec<String>>) -> report::Column {
    report::Column {
        name: column.name.clone(),
        kind: serde_json::to_value(column.kind)
            .ok()
            .and_then(|kind| kind.as_str().map(str::to_owned))
            .unwrap_or_default(),
        uses: uses.get(&column.name).cloned().unwrap_or_default(),
        count: column.count,
        nulls: column.nulls,
        distinct: Some(column.distinct),
        minimum: column.min.clone(),
        maximum: column.max.clone(),
        mean: column.numbers.as_ref().map(|numbers| numbers.mean),
        deviation: column.numbers.as_ref().map(|numbers| numbers.std),
        histogram: column
            .histogram
            .as_ref()
            .map_or_else(Vec::new, |it| it.counts.clone()),
        top: column
            .top
            .iter()
            .map(|value| (value.value.clone(), value.count))
            .collect(),
    }
}
