//! Says which rows can be trusted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wasmtime::component::Resource;

use super::{MAX_NAME_BYTES, check_name};
use crate::bindings::adapter::sandcast::plugin::types;
use crate::bindings::validator::exports::sandcast::plugin::validator as wire;
use crate::bindings::validator::{ValidatorPlugin, ValidatorPluginPre};
use crate::call::{CallError, Failure};
use crate::columns::{Batch, conform};
use crate::instance::{Instance, failure_of};
use crate::model::fields_of;
use crate::process::{self, Opening, Question};
use crate::recording::{Call, Recordings, answers, rows_to_bytes};
use crate::state::State;
use crate::text;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Counted and reported; the rows stay.
    Warning,
    /// The rows go to quarantine.
    Error,
}

/// A rule as the plugin has understood it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Names the rule among those of its configuration.
    pub id: String,
    /// The sort of rule, such as `not-null`.
    pub kind: String,
    /// The columns it looks at.
    pub columns: Vec<String>,
    /// How much it matters.
    pub severity: Severity,
    /// The share of rows that must pass, 0 to 1.
    pub mostly: f64,
    /// The rule as a sentence.
    pub description: String,
}

/// Rows of one batch that fail one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule; one of those it was configured with.
    pub rule: String,
    /// The column at fault.
    pub column: Option<String>,
    /// How much it matters.
    pub severity: Severity,
    /// Row numbers within the batch, from 0, rising.
    pub rows: Vec<u32>,
    /// What is wrong.
    pub message: String,
}

/// What a rule came to over all the batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The rule.
    pub rule: String,
    /// Whether enough rows passed.
    pub passed: bool,
    /// Rows it looked at.
    pub rows_checked: u64,
    /// Rows that failed it.
    pub rows_failed: u64,
    /// What was seen against what was wanted.
    pub message: String,
}

/// Rules of one configuration.
const MAX_RULES: usize = 10_000;

/// Findings about one batch.
const MAX_FINDINGS: usize = 100_000;

/// Bytes of a message; longer is cut.
const MAX_MESSAGE_BYTES: usize = 1024;

/// An instance that checks the batches of one dataset, in order.
pub struct Validator {
    instance: Instance,
    /// None where it runs in another process.
    guest: Option<Arc<ValidatorPlugin>>,
    rules: Vec<Rule>,
    /// Where a rule is among them.
    places: HashMap<String, usize>,
    /// The columns it was configured with.
    columns: HashSet<String>,
    /// What the verdicts are held against.
    seen: Seen,
}

/// What has gone past a validator.
#[derive(Default)]
struct Seen {
    rows: u64,
    /// Rows found by each rule, in the order of the rules.
    found: Vec<u64>,
}

impl Validator {
    pub(crate) async fn open(
        mut instance: Instance,
        pre: &ValidatorPluginPre<State>,
        config: &serde_json::Value,
        schema: &Schema,
        opening: Option<Box<Opening>>,
    ) -> Result<Self, CallError> {
        // The kinds that batches will have once they are lent.
        let schema = RecordBatch::new_empty(Arc::new(schema.clone()));
        let schema = conform(&schema).map_err(|error| instance.bad_input(error.to_string()))?;
        let fields = fields(&schema.schema()).map_err(|what| instance.bad_input(what))?;
        let opened = match opening {
            Some(opening) => {
                let columns = instance.rows(&schema)?;
                let question = Question::Open(opening);
                let rules = instance.ask(&question, Some(&columns)).await;
                rules.map(|rules| (None, rules))
            }
            None => {
                let made = configure(&mut instance, pre, &config.to_string(), &fields).await;
                made.and_then(|(guest, answer)| Ok((Some(guest), instance.accept(answer)?)))
            }
        };
        let opened = opened.and_then(|(guest, rules)| {
            let rules = check_rules(rules).map_err(|what| instance.bad_output(what))?;
            Ok((guest, rules))
        });
        let call = |parts: &Recordings| {
            let bytes = rows_to_bytes(&schema.schema(), &[])?;
            Ok(Call::ConfigureValidator {
                schema: parts.put(&bytes)?,
            })
        };
        let answer = |_: &Recordings, (_, rules): &(_, Vec<Rule>)| Ok(answers::value(rules));
        let (guest, rules) = instance.keep(opened, call, answer)?;
        Ok(Self {
            instance,
            guest,
            columns: schema
                .schema()
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect(),
            places: rules
                .iter()
                .enumerate()
                .map(|(place, rule)| (rule.id.clone(), place))
                .collect(),
            seen: Seen {
                rows: 0,
                found: vec![0; rules.len()],
            },
            rules,
        })
    }

    /// The rules as the plugin has understood them; their ids differ.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Looks at a batch.
    ///
    /// # Errors
    /// See [`CallError`]; also when a finding names an unknown rule, or a column or rows that are
    /// not there.
    pub async fn check(&mut self, batch: &RecordBatch) -> Result<Vec<Finding>, CallError> {
        let findings = self.look_at(batch).await;
        let call = |parts: &Recordings| {
            let bytes = rows_to_bytes(&batch.schema(), std::slice::from_ref(batch))?;
            Ok(Call::Check {
                rows: parts.put(&bytes)?,
            })
        };
        self.instance
            .keep(findings, call, |_, findings| Ok(answers::value(findings)))
    }

    async fn look_at(&mut self, batch: &RecordBatch) -> Result<Vec<Finding>, CallError> {
        let findings = match &self.guest {
            Some(guest) => {
                let lent = lend(&mut self.instance, batch)?;
                let answer = check(&mut self.instance, guest, lent).await?;
                self.instance.accept(answer)?
            }
            None if self.instance.lends() => {
                let lent = lend(&mut self.instance, batch)?;
                let lent = process::bytes_of(&lent);
                self.instance
                    .ask_said(&Question::Check, Some(&lent))
                    .await?
            }
            None => {
                let rows = self.instance.rows(batch)?;
                self.instance
                    .ask_said(&Question::Check, Some(&rows))
                    .await?
            }
        };
        let findings = self
            .check_findings(findings, batch.num_rows())
            .map_err(|what| self.instance.bad_output(what))?;
        self.seen.rows += batch.num_rows() as u64;
        count_found(&mut self.seen.found, &self.places, &findings);
        Ok(findings)
    }

    /// Judges, once every batch has been seen: one verdict for each rule. Ends the instance.
    ///
    /// # Errors
    /// See [`CallError`]; also when a verdict contradicts the rows seen or the findings about them.
    pub async fn finish(mut self) -> Result<Vec<Verdict>, CallError> {
        let verdicts = self.judge().await?;
        self.instance.finish()?;
        Ok(verdicts)
    }

    pub(crate) async fn judge(&mut self) -> Result<Vec<Verdict>, CallError> {
        let verdicts = self.ask_for_verdicts().await;
        self.instance.keep(
            verdicts,
            |_| Ok(Call::Judge),
            |_, verdicts| Ok(answers::value(verdicts)),
        )
    }

    pub(crate) fn instance(&mut self) -> &mut Instance {
        &mut self.instance
    }

    async fn ask_for_verdicts(&mut self) -> Result<Vec<Verdict>, CallError> {
        let verdicts = match &self.guest {
            Some(guest) => {
                let answer = judge(&mut self.instance, guest).await?;
                self.instance.accept(answer)?
            }
            None => self.instance.ask(&Question::Judge, None).await?,
        };
        self.check_verdicts(verdicts)
            .map_err(|what| self.instance.bad_output(what))
    }

    fn check_findings(
        &self,
        findings: Vec<wire::Finding>,
        rows: usize,
    ) -> Result<Vec<Finding>, String> {
        if findings.len() > MAX_FINDINGS {
            return Err(format!("{} findings about one batch", findings.len()));
        }
        findings
            .into_iter()
            .map(|finding| {
                let rule = text::sentence(&finding.rule, 64);
                if !self.places.contains_key(&finding.rule) {
                    return Err(format!(
                        "a finding about `{rule}`, which is none of its rules"
                    ));
                }
                if let Some(column) = &finding.column
                    && !self.columns.contains(column)
                {
                    return Err(format!(
                        "a finding of rule `{rule}` about column `{}`, which is not there",
                        text::sentence(column, 64)
                    ));
                }
                if finding.rows.is_empty() {
                    return Err(format!("a finding of rule `{rule}` about no rows"));
                }
                if finding.rows.windows(2).any(|pair| pair[0] >= pair[1]) {
                    return Err(format!("a finding of rule `{rule}` whose rows do not rise"));
                }
                if finding
                    .rows
                    .last()
                    .is_some_and(|last| *last as usize >= rows)
                {
                    return Err(format!(
                        "a finding of rule `{rule}` about a row past the {rows} there are"
                    ));
                }
                Ok(Finding {
                    rule: finding.rule,
                    column: finding
                        .column
                        .map(|column| text::sentence(&column, MAX_NAME_BYTES)),
                    severity: finding.severity.into(),
                    rows: finding.rows,
                    message: text::sentence(&finding.message, MAX_MESSAGE_BYTES),
                })
            })
            .collect()
    }

    fn check_verdicts(&self, verdicts: Vec<wire::Verdict>) -> Result<Vec<Verdict>, String> {
        let mut judged = HashSet::with_capacity(self.rules.len());
        for verdict in &verdicts {
            let rule = || text::sentence(&verdict.rule, 64);
            let Some(&place) = self.places.get(&verdict.rule) else {
                return Err(format!(
                    "a verdict on `{}`, which is none of its rules",
                    rule()
                ));
            };
            if !judged.insert(verdict.rule.as_str()) {
                return Err(format!("two verdicts on rule `{}`", rule()));
            }
            if verdict.rows_failed > verdict.rows_checked {
                return Err(format!(
                    "a verdict on rule `{}` with {} failed of {} rows",
                    rule(),
                    verdict.rows_failed,
                    verdict.rows_checked
                ));
            }
            if verdict.rows_checked > self.seen.rows {
                return Err(format!(
                    "a verdict on rule `{}` about {} rows of {} there were",
                    rule(),
                    verdict.rows_checked,
                    self.seen.rows
                ));
            }
            let found = self.seen.found[place];
            if verdict.rows_failed < found {
                return Err(format!(
                    "a verdict on rule `{}` with {} failed rows after findings about {found}",
                    rule(),
                    verdict.rows_failed
                ));
            }
            let checked = verdict.rows_checked as f64;
            let passing = (verdict.rows_checked - verdict.rows_failed) as f64;
            if verdict.passed && found > 0 && passing < self.rules[place].mostly * checked {
                return Err(format!(
                    "a verdict that rule `{}` passes, with {} of {} rows failed and a share of {} wanted",
                    rule(),
                    verdict.rows_failed,
                    verdict.rows_checked,
                    self.rules[place].mostly
                ));
            }
        }
        if let Some(rule) = self
            .rules
            .iter()
            .find(|rule| !judged.contains(rule.id.as_str()))
        {
            return Err(format!("no verdict on rule `{}`", rule.id));
        }
        Ok(verdicts
            .into_iter()
            .map(|verdict| Verdict {
                rule: verdict.rule,
                passed: verdict.passed,
                rows_checked: verdict.rows_checked,
                rows_failed: verdict.rows_failed,
                message: text::sentence(&verdict.message, MAX_MESSAGE_BYTES),
            })
            .collect())
    }
}

/// The columns of a schema as a guest is told of them.
pub(crate) fn fields(schema: &Schema) -> Result<Vec<types::Field>, String> {
    let fields =
        fields_of(schema).map_err(|(column, kind)| format!("column `{column}` is {kind}"))?;
    Ok(fields.into_iter().map(types::Field::from).collect())
}

/// Makes an instance and gives it its configuration: the rules, as it says them.
pub(crate) async fn configure(
    instance: &mut Instance,
    pre: &ValidatorPluginPre<State>,
    config: &str,
    fields: &[types::Field],
) -> Result<(Arc<ValidatorPlugin>, Result<Vec<wire::Rule>, Failure>), CallError> {
    let (pre, config, fields) = (pre.clone(), config.to_owned(), fields.to_vec());
    let made = instance.call(move |store| {
        Box::pin(async move {
            let guest = pre.instantiate_async(&mut *store).await?;
            let validator = guest.sandcast_plugin_validator();
            let answer = validator.call_configure(&mut *store, &config, &fields);
            let answer = answer.await?;
            Ok((Arc::new(guest), answer.map_err(failure_of)))
        })
    });
    made.await
}

/// Lends a batch to an instance.
pub(crate) fn lend(
    instance: &mut Instance,
    batch: &RecordBatch,
) -> Result<Resource<Batch>, CallError> {
    let lent = Batch::lend(batch).map_err(|error| instance.bad_input(error.to_string()))?;
    let lent = instance.push(lent)?;
    instance.count_rows(batch.num_rows());
    Ok(lent)
}

/// What a guest finds in a batch that it is lent, as it says it.
pub(crate) async fn check(
    instance: &mut Instance,
    guest: &Arc<ValidatorPlugin>,
    lent: Resource<Batch>,
) -> Result<Result<Vec<wire::Finding>, Failure>, CallError> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move {
            guest
                .sandcast_plugin_validator()
                .call_check(store, lent)
                .await
        })
    });
    Ok(answer.await?.map_err(failure_of))
}

/// What a guest makes of all that it has seen, as it says it.
pub(crate) async fn judge(
    instance: &mut Instance,
    guest: &Arc<ValidatorPlugin>,
) -> Result<Result<Vec<wire::Verdict>, Failure>, CallError> {
    let guest = Arc::clone(guest);
    let answer = instance.call(move |store| {
        Box::pin(async move { guest.sandcast_plugin_validator().call_finish(store).await })
    });
    Ok(answer.await?.map_err(failure_of))
}

/// Adds up how many rows of a batch each rule found; a row that several findings of a rule name
/// counts once.
fn count_found(found: &mut [u64], places: &HashMap<String, usize>, findings: &[Finding]) {
    let mut by_rule: HashMap<usize, HashSet<u32>> = HashMap::new();
    for finding in findings {
        let rows = by_rule.entry(places[&finding.rule]).or_default();
        rows.extend(&finding.rows);
    }
    for (place, rows) in by_rule {
        found[place] += rows.len() as u64;
    }
}

fn check_rules(rules: Vec<wire::Rule>) -> Result<Vec<Rule>, String> {
    if rules.len() > MAX_RULES {
        return Err(format!("{} rules, over {MAX_RULES}", rules.len()));
    }
    let mut ids = HashSet::with_capacity(rules.len());
    for rule in &rules {
        check_name("the id of a rule", &rule.id)?;
        check_name("the kind of a rule", &rule.kind)?;
        if !ids.insert(rule.id.as_str()) {
            return Err(format!("two rules with the id `{}`", rule.id));
        }
        if !(0.0..=1.0).contains(&rule.mostly) {
            return Err(format!(
                "rule `{}` wants a share of {}, not 0 to 1",
                rule.id, rule.mostly
            ));
        }
    }
    Ok(rules
        .into_iter()
        .map(|rule| Rule {
            id: rule.id,
            kind: rule.kind,
            columns: rule
                .columns
                .iter()
                .map(|column| text::sentence(column, MAX_NAME_BYTES))
                .collect(),
            severity: rule.severity.into(),
            mostly: rule.mostly,
            description: text::sentence(&rule.description, MAX_MESSAGE_BYTES),
        })
        .collect())
}

impl Serialize for types::Severity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Severity::from(*self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for types::Severity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Severity::deserialize(deserializer).map(|severity| match severity {
            Severity::Warning => types::Severity::Warning,
            Severity::Error => types::Severity::Error,
        })
    }
}

impl From<types::Severity> for Severity {
    fn from(severity: types::Severity) -> Self {
        match severity {
            types::Severity::Warning => Severity::Warning,
            types::Severity::Error => Severity::Error,
        }
    }
}
