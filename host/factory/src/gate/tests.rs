use std::collections::BTreeMap;

use super::facts::{Champion, Facts};
use super::{Gate, expression::Expression};
use sandcast_sandbox::ControlPoint;

fn numbers(entries: &[(&str, f64)]) -> BTreeMap<String, f64> {
    entries
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect()
}

fn facts() -> Facts {
    Facts {
        metrics: numbers(&[("auc", 0.81), ("log_loss", f64::NAN)]),
        slices: BTreeMap::from([(
            "sex".to_owned(),
            numbers(&[("demographic_parity_difference", 0.23)]),
        )]),
        champion: None,
        policy: BTreeMap::from([(ControlPoint::TrainStart, "allow".to_owned())]),
        data: numbers(&[("rows", 1001.0), ("quarantined", 10.0)]),
    }
}

fn judge(expression: &str, facts: &Facts) -> (bool, String) {
    let parsed = Expression::parse(expression).expect("the expression parses");
    let gate = Gate {
        expressions: vec![parsed],
    };
    let judgement = gate.judge(facts);
    let check = judgement
        .checks
        .into_iter()
        .next()
        .expect("there is one check");
    assert_eq!(judgement.approved, check.passed);
    (check.passed, check.observed)
}

#[test]
fn what_holds_says_what_it_saw() {
    assert_eq!(
        judge("metrics.auc >= 0.75", &facts()),
        (true, "metrics.auc = 0.81".to_owned())
    );
    assert!(judge("true", &facts()).0);
    assert!(
        judge(
            "policy.train_start == 'allow' && policy['train-start'] != 'deny'",
            &facts()
        )
        .0
    );
    assert!(
        judge(
            "slices.all(column, slices[column].demographic_parity_difference < 1)",
            &facts()
        )
        .0
    );
}

#[test]
fn what_does_not_hold_says_what_was_wanted() {
    let expression = "slices.sex.demographic_parity_difference <= 0.10";
    let wanted = "slices.sex.demographic_parity_difference = 0.23, wanted <= 0.1";
    assert_eq!(judge(expression, &facts()), (false, wanted.to_owned()));
}

#[test]
fn whole_numbers_mix_with_measured_ones() {
    assert!(judge("metrics.auc * 100 >= 81", &facts()).0);
    assert!(
        judge("data.rows / 2 > 500", &facts()).0,
        "a count is not cut to a whole number"
    );
    assert!(!judge("data.quarantined / data.rows <= 0", &facts()).0);
}

#[test]
fn a_champion_is_compared_if_there_is_one() {
    let expression = "champion == null || metrics.auc >= champion.metrics.auc - 0.01";
    assert!(judge(expression, &facts()).0);
    let mut facts = facts();
    facts.champion = Some(Champion {
        version: 3,
        metrics: numbers(&[("auc", 0.9)]),
        slices: BTreeMap::new(),
    });
    let (passed, observed) = judge(expression, &facts);
    assert!(!passed);
    assert_eq!(
        observed,
        "champion is there, wanted == null, and metrics.auc = 0.81, \
         wanted >= 0.89 (champion.metrics.auc - 0.01)"
    );
}

#[test]
fn what_cannot_be_worked_out_does_not_hold() {
    let (passed, observed) = judge("metrics.log_loss < 0.5", &facts());
    assert!(!passed);
    assert!(
        observed.contains("metrics.log_loss is not known"),
        "{observed}"
    );
    let (passed, observed) = judge("champion.metrics.auc < 0.5", &facts());
    assert!(!passed, "{observed}");
    let (passed, observed) = judge("metrics.auc", &facts());
    assert!(!passed);
    assert_eq!(observed, "it is neither true nor false");
}

#[test]
fn a_gate_without_expressions_approves_nothing() {
    assert!(
        !Gate {
            expressions: Vec::new()
        }
        .judge(&facts())
        .approved
    );
}

#[test]
fn nesting_is_bounded() {
    let deep = [
        format!("{}true{}", "(".repeat(490), ")".repeat(490)),
        "[".repeat(1000),
        format!("{}true", "!".repeat(900)),
        format!("{}1 == 1", "- ".repeat(400)),
        format!("{}true", "true ? true : ".repeat(70)),
        format!("metrics{}", ".auc".repeat(200)),
        format!("data.rows {}> 0", "+ 1 ".repeat(200)),
        "true && ".repeat(500),
    ];
    for expression in deep {
        // Brackets alone make no tree, and what makes one is refused.
        if let Ok(parsed) = Expression::parse(&expression) {
            assert!(
                Gate {
                    expressions: vec![parsed]
                }
                .judge(&facts())
                .approved,
                "{expression}"
            );
        }
    }
}

#[test]
fn long_expressions_are_no_trouble() {
    let sum = format!("data.rows {}> 0", "+ 1 ".repeat(50));
    assert!(judge(&sum, &facts()).0);
    let many = format!("{}true", "true && ".repeat(110));
    assert!(judge(&many, &facts()).0);
}
