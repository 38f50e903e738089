//! What had to hold, and what the policies said.

use maud::{Markup, html};

use super::input::{Decision, GateCheck, ReportInput};
use super::text::{CELL, and_more, clip, score};
use super::{Section, chart, head};
use crate::metrics::{Evaluation, Metric};

const CHECKS: usize = 60;
const DECISIONS: usize = 60;

pub(super) fn section(input: &ReportInput) -> Option<Section> {
    if input.gate.is_empty() {
        return None;
    }
    let failed = input.gate.iter().filter(|check| !check.passed).count();
    let lead = match failed {
        0 => "Every check held, so the model could be registered.".to_owned(),
        1 => "One check did not hold, so nothing was registered.".to_owned(),
        _ => format!("{failed} checks did not hold, so nothing was registered."),
    };
    let body = html! {
        div.card.scroll {
            table {
                thead { tr { th {} th { "Check" } th { "Observed" } th { "Against its limit" } } }
                tbody {
                    @for check in input.gate.iter().take(CHECKS) {
                        tr {
                            td style="width:32px" { (chart::mark(check.passed)) }
                            td.check { code { (clip(&check.expression, CELL)) } }
                            td.check.bad[!check.passed] { code { (clip(&check.observed, CELL)) } }
                            td style="width:230px" { (bullet(check, input.evaluation.as_ref())) }
                        }
                    }
                }
            }
            (and_more(CHECKS.min(input.gate.len()), input.gate.len(), "checks"))
        }
    };
    Some(Section {
        id: "gate",
        title: "Gate",
        lead,
        body,
    })
}

/// A number on a scale with its limit, where a check is that simple.
fn bullet(check: &GateCheck, evaluation: Option<&Evaluation>) -> Markup {
    let limit = Limit::read(&check.expression);
    let value = evaluation
        .zip(limit)
        .and_then(|(evaluation, limit)| limit.value(evaluation));
    let (Some(limit), Some(value)) = (limit, value) else {
        return html! { span.faint { "–" } };
    };
    // From 0 to 1 where both fit sensibly, else to a round place beyond both.
    let top = value.abs().max(limit.limit.abs());
    let scale = if top > 0.5 && top <= 1.0 {
        1.0
    } else {
        top * 1.5
    };
    let place = |value: f64| (value / scale).clamp(0.0, 1.0) * 200.0;
    let class = if check.passed { "bar-good" } else { "bar-bad" };
    let title = format!("{} against a limit of {}", score(Some(value)), limit.limit);
    html! {
        svg width="214" height="26" viewBox="0 0 214 26" role="img" aria-label=(title) {
            rect.track x="0" y="10" width="200" height="8" rx="4" {}
            rect class=(class) x="0" y="10" width=(chart::at(place(value).max(3.0))) height="8" rx="4" {}
            line.limit x1=(chart::at(place(limit.limit))) x2=(chart::at(place(limit.limit)))
                y1="5" y2="23" {}
        }
    }
}

/// A check that compares one number of the evaluation with a constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limit<'a> {
    pub(super) path: &'a str,
    /// Whether the number must stay below the limit rather than above it.
    pub(super) is_ceiling: bool,
    pub(super) limit: f64,
}

impl<'a> Limit<'a> {
    /// Reads `slices.sex.demographic_parity_difference <= 0.10` and the like; nothing of
    /// anything longer.
    pub(super) fn read(expression: &'a str) -> Option<Self> {
        let (start, is_ceiling) = [("<", true), (">", false)]
            .into_iter()
            .find_map(|(sign, is_ceiling)| Some((expression.find(sign)?, is_ceiling)))?;
        let path = expression[..start].trim();
        let limit = expression[start + 1..]
            .trim_start_matches('=')
            .trim()
            .parse()
            .ok()?;
        let plain = |character: char| character.is_alphanumeric() || "._-".contains(character);
        let is_path = path.contains('.') && path.chars().all(plain);
        is_path.then_some(Self {
            path,
            is_ceiling,
            limit,
        })
    }

    /// The number of the evaluation that is compared.
    pub(super) fn value(&self, evaluation: &Evaluation) -> Option<f64> {
        if let Some(name) = self.path.strip_prefix("metrics.") {
            let metric = Metric::ALL
                .into_iter()
                .find(|metric| metric.name() == name)?;
            return evaluation.metric(metric);
        }
        let (column, name) = self.path.strip_prefix("slices.")?.rsplit_once('.')?;
        evaluation.slices.get(column)?.distance(name)
    }
}

pub(super) fn decisions_section(input: &ReportInput) -> Option<Section> {
    if input.decisions.is_empty() {
        return None;
    }
    let denied = input
        .decisions
        .iter()
        .filter(|decision| decision.effect != "allow")
        .count();
    let lead = match denied {
        0 => "Every policy that was asked said yes.".to_owned(),
        1 => "One decision was not a plain yes.".to_owned(),
        _ => format!("{denied} decisions were not a plain yes."),
    };
    let body = html! {
        div.card.scroll {
            table {
                thead {
                    tr { th { "Control point" } th { "Decision" } th { "Asked for" } th { "Policy" } th { "Why" } }
                }
                tbody {
                    @for decision in input.decisions.iter().take(DECISIONS) { (decision_row(decision)) }
                }
            }
            (and_more(DECISIONS.min(input.decisions.len()), input.decisions.len(), "decisions"))
        }
    };
    Some(Section {
        id: "policies",
        title: "Policies",
        lead,
        body,
    })
}

fn decision_row(decision: &Decision) -> Markup {
    let (allowed, denied) = (decision.effect == "allow", decision.effect == "deny");
    html! {
        tr {
            th { (clip(&decision.control_point, 60)) }
            td {
                span.chip.good[allowed].bad[denied].warn[!allowed && !denied] {
                    (clip(&decision.effect, 40))
                }
            }
            td {
                code { (clip(&decision.action, 60)) } " "
                span.soft { (clip(&decision.resource, CELL)) }
                span.under { "by " (clip(&decision.principal, CELL)) }
            }
            td { (clip(&decision.policy, 60)) }
            td.soft {
                @for (index, reason) in decision.reasons.iter().take(6).enumerate() {
                    @if index > 0 { br; }
                    (head::code_spans(&clip(reason, CELL)))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_check_has_a_limit() {
        let limit = Limit::read("slices.age_band.demographic_parity_difference <= 0.10");
        assert_eq!(
            limit,
            Some(Limit {
                path: "slices.age_band.demographic_parity_difference",
                is_ceiling: true,
                limit: 0.1
            })
        );
        let limit = Limit::read("metrics.auc >= 0.75").expect("a limit");
        assert_eq!((limit.is_ceiling, limit.limit), (false, 0.75));
        assert!(Limit::read("metrics.log_loss<0.4").is_some_and(|limit| limit.is_ceiling));
    }

    #[test]
    fn a_longer_check_has_none() {
        for expression in [
            "policy.promote == 'allow'",
            "champion == null || metrics.auc >= champion.metrics.auc - 0.01",
            "metrics.auc >= champion.metrics.auc",
            "metrics.auc * 100 >= 75",
            "auc > 0.5",
        ] {
            assert_eq!(Limit::read(expression), None, "{expression}");
        }
    }
}
