//! Reports of runs as they happen. With `SANDCAST_REPORT_DIR` set to a folder, the reports are
//! left there to be looked at.

use std::collections::BTreeMap;

use super::*;
use crate::metrics::{
    Anomaly, Binary, Clustering, EvaluateOptions, Evaluation, Metric, Multiclass, Outcomes, Points,
    Regression, SliceColumn, evaluate,
};

/// Numbers that look random and are the same every time (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Roughly normal, mean 0 and deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

/// Applicants whose origin the model has learnt to hold against them, or not.
fn credit_evaluation(bias: f64) -> Evaluation {
    let mut noise = Noise(7);
    let rows = 2_314;
    let (mut positive, mut probability) = (Vec::new(), Vec::new());
    let (mut origins, mut sexes, mut bands) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rows {
        let abroad = noise.next() < 0.28;
        let female = noise.next() < 0.47;
        let band = ["under 30", "30 to 49", "50 and over"][(noise.next() * 3.0) as usize];
        let worth = noise.normal();
        let odds = 1.5 * worth + 0.7;
        let repaid = noise.next() < 1.0 / (1.0 + (-odds).exp());
        let seen = odds + 0.35 * noise.normal() - if abroad { bias } else { -0.15 * bias };
        positive.push(repaid);
        probability.push(1.0 / (1.0 + (-seen).exp()));
        origins.push(if abroad { "abroad" } else { "domestic" });
        sexes.push(if female { "female" } else { "male" });
        bands.push(band);
    }
    // A few whose sex is not known: too few to be judged.
    sexes.iter_mut().take(11).for_each(|sex| *sex = "not said");
    let slice = |name: &str, values: &[&str]| {
        SliceColumn::new(name, values.iter().map(|value| Some(*value))).expect("few groups")
    };
    let slices = [
        slice("origin", &origins),
        slice("sex", &sexes),
        slice("age_band", &bands),
    ];
    let binary = Binary::new(["no", "yes"], &positive, &probability).expect("valid rows");
    evaluate(
        &Outcomes::Binary(binary),
        &slices,
        &EvaluateOptions::default(),
    )
    .expect("evaluated")
}

fn hex(seed: u64) -> String {
    let mut noise = Noise(seed);
    (0..64)
        .map(|_| char::from(b"0123456789abcdef"[(noise.next() * 16.0) as usize]))
        .collect()
}

fn source(name: &str, rows_in: u64, reasons: &[(&str, u64)]) -> Source {
    let rows_rejected = reasons.iter().map(|(_, rows)| rows).sum();
    Source {
        name: name.to_owned(),
        plugin: "csv".to_owned(),
        splits: 1,
        rows_in,
        rows_landed: rows_in - rows_rejected,
        rows_rejected,
        reasons: counts(reasons),
        digest: hex(rows_in),
    }
}

fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

fn rule(id: &str, description: &str, column: &str, mostly: Option<f64>, failed: u64) -> Rule {
    Rule {
        id: id.to_owned(),
        description: description.to_owned(),
        columns: vec![column.to_owned()],
        severity: "error".to_owned(),
        mostly,
        rows_checked: 12_213,
        rows_failed: failed,
        passed: true,
        observed: String::new(),
    }
}

fn number(name: &str, usage: &str, bounds: (f64, f64), mean: f64, deviation: f64) -> Column {
    let mut noise = Noise(name.len() as u64 + mean as u64);
    let mut histogram = vec![0; 32];
    for _ in 0..11_570 {
        let value = mean + deviation * noise.normal();
        let bin = ((value - bounds.0) / (bounds.1 - bounds.0) * 32.0).clamp(0.0, 31.0);
        histogram[bin as usize] += 1;
    }
    Column {
        name: name.to_owned(),
        kind: "float64".to_owned(),
        uses: vec![usage.to_owned()],
        count: 11_570,
        nulls: 0,
        distinct: Some(9_120),
        minimum: Some(bounds.0.to_string()),
        maximum: Some(bounds.1.to_string()),
        mean: Some(mean),
        deviation: Some(deviation),
        histogram,
        top: Vec::new(),
    }
}

fn category(name: &str, usage: &str, top: &[(&str, u64)]) -> Column {
    Column {
        name: name.to_owned(),
        kind: "utf8".to_owned(),
        uses: vec![usage.to_owned()],
        count: top.iter().map(|(_, rows)| rows).sum(),
        distinct: Some(top.len() as u64),
        minimum: Some("a".to_owned()),
        maximum: Some("z".to_owned()),
        top: top
            .iter()
            .map(|(value, rows)| ((*value).to_owned(), *rows))
            .collect(),
        ..Column::default()
    }
}

fn check(expression: &str, passed: bool, observed: String) -> GateCheck {
    GateCheck {
        expression: expression.to_owned(),
        passed,
        observed,
    }
}

fn capability(name: &str, reason: Option<&str>, granted: Option<&str>, calls: u64) -> Capability {
    Capability {
        name: name.to_owned(),
        reason: reason.map(str::to_owned),
        granted: granted.map(str::to_owned),
        calls,
    }
}

fn plugin(name: &str, id: &str, role: &str, bytes: u64, capabilities: Vec<Capability>) -> Plugin {
    Plugin {
        name: name.to_owned(),
        id: id.to_owned(),
        version: "0.1.0".to_owned(),
        role: role.to_owned(),
        vendor: "Sandcast".to_owned(),
        license: "Apache-2.0".to_owned(),
        digest: hex(bytes),
        bytes,
        signers: Vec::new(),
        capabilities,
        guest_seconds: bytes as f64 / 1e6,
        peak_memory_bytes: bytes * 20,
        denials: 0,
        ..Plugin::default()
    }
}

fn credit_plugins() -> Vec<Plugin> {
    let log = || {
        capability(
            "log",
            Some("to say which file is read"),
            Some("64 KiB a second"),
            12,
        )
    };
    vec![
        plugin(
            "csv",
            "sandcast/connector-csv",
            "connector",
            148_321,
            vec![
                capability(
                    "files",
                    Some("reads the files that the configuration names"),
                    Some("/data, read only"),
                    1_204,
                ),
                log(),
            ],
        ),
        plugin(
            "rules",
            "sandcast/validator-rules",
            "validator",
            201_114,
            vec![log()],
        ),
        plugin(
            "cedar",
            "sandcast/policy-cedar",
            "policy",
            2_048_771,
            vec![capability(
                "clock",
                Some("policies may ask for the time"),
                None,
                0,
            )],
        ),
        plugin(
            "mlp",
            "sandcast/adapter-mlp",
            "adapter",
            96_020,
            vec![
                capability(
                    "compute",
                    Some("trains and predicts"),
                    Some("1 GiB, 10 min"),
                    41,
                ),
                log(),
            ],
        ),
    ]
}

fn training(epochs: u32) -> Training {
    let mut noise = Noise(3);
    Training {
        adapter: "mlp".to_owned(),
        task: "binary-classification".to_owned(),
        target: Some("repaid".to_owned()),
        features: [
            "age",
            "income",
            "employment_years",
            "loan_amount",
            "purpose",
            "district",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows_training: 8_099,
        rows_validation: 1_157,
        rows_test: 2_314,
        seconds: 1.9,
        device: "cpu, 2 threads".to_owned(),
        precision: "f32-strict".to_owned(),
        parameters: 4_290,
        best_epoch: Some(epochs * 3 / 4),
        epochs: (1..=epochs)
            .map(|epoch| {
                let way = f64::from(epoch) / f64::from(epochs);
                let wobble = 0.004 * noise.normal();
                Epoch {
                    epoch,
                    training_loss: 0.46 + 0.25 * (-4.5 * way).exp() - 0.02 * way,
                    validation_loss: Some(
                        0.475 + 0.22 * (-5.0 * way).exp() + 0.03 * (way - 0.7).powi(2) + wobble,
                    ),
                }
            })
            .collect(),
        hyperparameters: [
            ("hidden", "[64, 32]"),
            ("dropout", "0.1"),
            ("epochs", "60"),
            ("batch_rows", "256"),
            ("learning_rate", "0.003"),
            ("patience", "6"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect(),
    }
}

/// The first attempt of the credit-risk example: refused for its bias.
fn refused() -> ReportInput {
    let evaluation = credit_evaluation(1.25);
    let auc = evaluation.metric(Metric::Auc).expect("both classes occur");
    let gap = |column: &str| {
        evaluation.slices[column]
            .demographic_parity_difference
            .expect("large groups")
    };
    let observed = |column: &str| {
        format!(
            "slices.{column}.demographic_parity_difference = {:.4}",
            gap(column)
        )
    };
    ReportInput {
        run: "20261121-201530-4f3a9c".to_owned(),
        pipeline: "credit-risk".to_owned(),
        started: "2026-11-21T20:15:30.118Z".to_owned(),
        seconds: 6.4,
        sandcast_version: "0.1.0".to_owned(),
        config_digest: hex(1),
        seed: 7,
        outcome: Outcome::Refused {
            reasons: vec![format!(
                "`slices.origin.demographic_parity_difference <= 0.10` does not hold: {}",
                observed("origin")
            )],
        },
        sources: vec![
            source(
                "branch",
                8_142,
                &[
                    ("column `income`: not a float64", 31),
                    ("12 fields where the header has 11", 9),
                ],
            ),
            source(
                "web",
                4_131,
                &[
                    ("column `birth_year`: not an int64", 14),
                    ("an unclosed quote", 2),
                    ("column `submitted`: not a date", 4),
                ],
            ),
        ],
        dataset: Some(Dataset {
            name: "credit-risk".to_owned(),
            digest: hex(2),
            rows: 12_213,
            columns: 15,
            bytes: 612_004,
            sql: Some(
                "SELECT applicant_id, age, income, repaid\nFROM branch\nUNION ALL\nSELECT \
                       customer, age, monthly_income * 12, outcome\nFROM web"
                    .to_owned(),
            ),
        }),
        validation: Some(Validation {
            rows_in: 12_213,
            rows_passed: 11_570,
            rows_quarantined: 643,
            reasons: counts(&[
                ("one-application-each: the value was there before", 301),
                ("age-of-an-adult: not from 18 to 100", 147),
                ("outcome-known: missing", 118),
                ("income-not-negative: below 0", 64),
                ("district-known: not one of the 6 values", 29),
            ]),
            rules: vec![
                rule(
                    "one-application-each",
                    "unique",
                    "applicant_id",
                    Some(0.97),
                    301,
                ),
                rule("age-of-an-adult", "from 18 to 100", "age", Some(0.98), 147),
                rule(
                    "income-not-negative",
                    "at least 0",
                    "income",
                    Some(0.98),
                    64,
                ),
                rule("outcome-known", "not missing", "repaid", Some(0.98), 118),
                rule("district-known", "one of 6 values", "district", None, 29),
                Rule {
                    severity: "warning".to_owned(),
                    observed: "12,213 rows".to_owned(),
                    ..rule("enough-rows", "at least 9,000 rows", "", None, 0)
                },
            ],
            digest: hex(3),
        }),
        profile: vec![
            number("age", "feature", (18.0, 79.0), 43.2, 12.8),
            number("income", "feature", (0.0, 181_000.0), 48_310.0, 21_400.0),
            Column {
                nulls: 402,
                ..number("employment_years", "feature", (0.0, 41.0), 9.6, 7.1)
            },
            number(
                "loan_amount",
                "feature",
                (500.0, 60_000.0),
                14_200.0,
                8_900.0,
            ),
            category(
                "purpose",
                "feature",
                &[
                    ("car", 4_102),
                    ("home", 3_411),
                    ("education", 2_002),
                    ("travel", 1_301),
                    ("other", 754),
                ],
            ),
            category(
                "district",
                "feature",
                &[
                    ("Northgate", 3_004),
                    ("Harbour", 2_511),
                    ("Oldtown", 2_102),
                    ("Millside", 1_601),
                    ("Parkview", 1_254),
                    ("Riverbank", 1_098),
                ],
            ),
            category("origin", "slice", &[("domestic", 8_352), ("abroad", 3_218)]),
            category(
                "sex",
                "slice",
                &[("male", 6_092), ("female", 5_421), ("not said", 57)],
            ),
            category("repaid", "target", &[("yes", 7_404), ("no", 4_166)]),
        ],
        training: Some(training(42)),
        champion: Some(Champion {
            version: 2,
            metrics: BTreeMap::from([
                (Metric::Auc, Some(auc - 0.0042)),
                (Metric::Brier, Some(0.1881)),
                (Metric::Accuracy, Some(0.741)),
                (Metric::LogLoss, Some(0.5012)),
                (Metric::Ece, Some(0.031)),
            ]),
        }),
        gate: vec![
            check(
                "metrics.auc >= 0.75",
                true,
                format!("metrics.auc = {auc:.4}"),
            ),
            check(
                "metrics.ece <= 0.12",
                true,
                format!(
                    "metrics.ece = {:.4}",
                    evaluation.metric(Metric::Ece).expect("rows")
                ),
            ),
            check(
                "slices.origin.demographic_parity_difference <= 0.10",
                false,
                observed("origin"),
            ),
            check(
                "slices.sex.demographic_parity_difference <= 0.10",
                true,
                observed("sex"),
            ),
            check(
                "champion == null || metrics.auc >= champion.metrics.auc - 0.02",
                true,
                format!("champion.metrics.auc = {:.4}", auc - 0.0042),
            ),
            check(
                "policy.promote == 'allow'",
                true,
                "policy.promote = \"allow\"".to_owned(),
            ),
        ],
        evaluation: Some(evaluation),
        decisions: ["data-read", "train-start", "promote"]
            .into_iter()
            .zip(["read", "train", "promote"])
            .map(|(control_point, action)| Decision {
                policy: "cedar".to_owned(),
                control_point: control_point.to_owned(),
                principal: "Pipeline::\"credit-risk\"".to_owned(),
                action: action.to_owned(),
                resource: "Dataset::\"credit-risk\"".to_owned(),
                effect: "allow".to_owned(),
                reasons: vec!["permitted by `the-line-may-read-and-train`".to_owned()],
            })
            .collect(),
        model: Some(Model {
            name: Some("credit-risk".to_owned()),
            digest: hex(4),
            bytes: 21_402,
            data_sourcing: Some("none: it learns from the pipeline's rows only".to_owned()),
            intended_use: Some("tabular classification and regression".to_owned()),
            update_cadence: Some("with each release of Sandcast".to_owned()),
        }),
        plugins: credit_plugins(),
    }
}

/// The second attempt: approved.
fn approved() -> ReportInput {
    let mut input = refused();
    input.outcome = Outcome::Approved {
        model: "credit-risk".to_owned(),
        version: 3,
        alias: Some("champion".to_owned()),
        approval: None,
    };
    let evaluation = credit_evaluation(0.12);
    let gap = evaluation.slices["origin"]
        .demographic_parity_difference
        .expect("large groups");
    for check in &mut input.gate {
        check.passed = true;
        if check.expression.starts_with("slices.origin") {
            check.observed = format!("slices.origin.demographic_parity_difference = {gap:.4}");
        }
    }
    input.evaluation = Some(evaluation);
    input
}

/// A run that stopped at validation.
fn failed() -> ReportInput {
    ReportInput {
        outcome: Outcome::Failed {
            stage: "validate".to_owned(),
            message: "plugin `rules` ran out of time in stage `validate`: call_timeout is 10 s; \
                      raise it at `plugins.rules.grants.limits.call_timeout`"
                .to_owned(),
        },
        validation: None,
        profile: Vec::new(),
        training: None,
        evaluation: None,
        champion: None,
        gate: Vec::new(),
        decisions: Vec::new(),
        model: None,
        ..refused()
    }
}

fn look_at(name: &str, html: &str) {
    if let Some(folder) = std::env::var_os("SANDCAST_REPORT_DIR") {
        let path = std::path::Path::new(&folder).join(name);
        std::fs::write(path, html).expect("the folder can be written");
    }
}

#[test]
fn a_refused_run_says_what_did_not_hold() {
    let html = render(&refused());
    look_at("refused.html", &html);
    assert!(html.contains("Nothing was registered."));
    assert!(html.contains("<code>slices.origin.demographic_parity_difference &lt;= 0.10</code>"));
    assert!(html.contains("One check did not hold"));
    for id in [
        "gate",
        "data",
        "validation",
        "columns",
        "training",
        "evaluation",
        "slices",
        "policies",
        "lineage",
        "plugins",
    ] {
        assert!(
            html.contains(&format!("<section id=\"{id}\">")),
            "no section {id}"
        );
        assert!(
            html.contains(&format!("href=\"#{id}\"")),
            "no way to section {id}"
        );
    }
}

#[test]
fn an_approved_run_says_what_was_registered() {
    let html = render(&approved());
    look_at("approved.html", &html);
    assert!(html.contains("Registered as <strong>credit-risk version 3</strong>"));
    assert!(html.contains("Every check held"));
    assert!(!html.contains("banner bad"));
}

#[test]
fn a_run_whose_promotion_waits_says_for_whom() {
    let mut input = approved();
    input.outcome = Outcome::Approved {
        model: "credit-risk".to_owned(),
        version: 3,
        alias: None,
        approval: Some("a1b2".to_owned()),
    };
    let html = render(&input);
    look_at("waits.html", &html);
    assert!(html.contains("Registered as <strong>credit-risk version 3</strong>."));
    assert!(html.contains("<code>sandcast approvals approve a1b2 --reason TEXT</code>"));
    assert!(html.contains("not promoted") && html.contains("waits for approval"));
}

#[test]
fn a_failed_run_shows_what_it_reached() {
    let html = render(&failed());
    look_at("failed.html", &html);
    assert!(html.contains("The run stopped in stage validate."));
    assert!(html.contains("<section id=\"data\">"));
    assert!(!html.contains("<section id=\"evaluation\">"));
}

#[test]
fn a_run_that_did_nothing_still_has_a_report() {
    let html = render(&ReportInput::default());
    assert!(html.starts_with("<!DOCTYPE html>"));
    assert!(html.contains("Refused"));
}

#[test]
fn several_classes_and_numbers_are_shown() {
    let classes: Vec<String> = ["ham", "spam", "eggs"].map(str::to_owned).to_vec();
    let mut noise = Noise(5);
    let truth: Vec<u32> = (0..400).map(|row| row % 3).collect();
    let probabilities: Vec<f64> = truth
        .iter()
        .flat_map(|class| {
            let mut row = [noise.next(), noise.next(), noise.next()];
            row[*class as usize] += 0.6;
            let sum: f64 = row.iter().sum();
            row.map(|value| value / sum)
        })
        .collect();
    let groups = SliceColumn::new("shop", (0..400).map(|row| Some(["a", "b"][row % 2])));
    let groups = [groups.expect("two groups")];
    let options = EvaluateOptions::default();
    let rows = Multiclass::new(&classes, &truth, &probabilities).expect("valid rows");
    let evaluation = evaluate(&Outcomes::Multiclass(rows), &groups, &options).expect("evaluated");
    let html = render(&ReportInput {
        evaluation: Some(evaluation),
        ..refused()
    });
    look_at("multiclass.html", &html);
    assert!(html.contains("Each class against the rest"));
    assert!(html.contains("predicted eggs"));
    assert!(!html.contains("ROC curve"));

    let values: Vec<f64> = (0..400).map(|_| 50.0 + 20.0 * noise.normal()).collect();
    let guesses: Vec<f64> = values
        .iter()
        .map(|value| value + 4.0 * noise.normal())
        .collect();
    let rows = Regression::new(&values, &guesses).expect("valid rows");
    let evaluation = evaluate(&Outcomes::Regression(rows), &groups, &options).expect("evaluated");
    let html = render(&ReportInput {
        evaluation: Some(evaluation),
        ..refused()
    });
    look_at("regression.html", &html);
    assert!(html.contains("Root mean squared error"));
    assert!(html.contains("Mean prediction"));
}

#[test]
fn scores_and_clusters_are_shown() {
    let mut noise = Noise(9);
    let positive: Vec<bool> = (0..1_000).map(|row| row % 40 == 0).collect();
    let scores: Vec<f64> = positive
        .iter()
        .map(|positive| noise.normal().abs() + 3.0 * f64::from(u8::from(*positive)))
        .collect();
    let options = EvaluateOptions::default();
    let shown = |outcomes: &Outcomes<'_>| {
        let evaluation = evaluate(outcomes, &[], &options).expect("evaluated");
        render(&ReportInput {
            evaluation: Some(evaluation),
            ..refused()
        })
    };
    let rows = Anomaly::new(&scores).expect("valid rows");
    let html = shown(&Outcomes::Anomaly(rows));
    look_at("anomaly.html", &html);
    assert!(html.contains("Histogram of scores"));
    assert!(html.contains("nothing says which rows are anomalies"));
    assert!(!html.contains("ROC curve") && !html.contains("In red"));

    let rows = rows.labelled(["ok", "fault"], &positive).expect("as many");
    let html = shown(&Outcomes::Anomaly(rows));
    look_at("anomaly-labelled.html", &html);
    assert!(html.contains("ROC curve") && html.contains("In red"));
    assert!(html.contains("Precision at the share"));

    let clusters: Vec<u32> = (0..1_000).map(|row| [0, 0, 0, 2, 5][row % 5]).collect();
    let distances: Vec<f64> = (0..1_000).map(|_| noise.normal().abs()).collect();
    let points = Points::default();
    let rows = Clustering::new(&clusters, &distances, &points).expect("valid rows");
    let html = shown(&Outcomes::Clustering(rows));
    look_at("clustering.html", &html);
    assert!(html.contains("Rows of each, and how far they are from its centre"));
    assert!(html.contains("60%") && !html.contains("Histogram of scores"));
}

#[test]
fn nothing_is_loaded_and_nothing_runs() {
    let html = render(&refused());
    for forbidden in [
        "<script", "http://", "https://", "url(", "<img", "<link", "@import", "onload",
    ] {
        assert!(!html.contains(forbidden), "{forbidden} is in the report");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn what_data_says_is_text() {
    let evil = "</style></text><script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let mut input = refused();
    input.pipeline = evil.to_owned();
    input.outcome = Outcome::Refused {
        reasons: vec![evil.to_owned()],
    };
    input.sources[0].name = evil.to_owned();
    input.sources[0].digest = evil.to_owned();
    input.sources[0].reasons = counts(&[(evil, 3)]);
    input.profile[4].top[0].0 = evil.to_owned();
    input.profile[0].name = evil.to_owned();
    input.gate[0].expression = evil.to_owned();
    input.decisions[0].reasons = vec![evil.to_owned()];
    input.plugins[0].capabilities[0].reason = Some(evil.to_owned());
    let training = input.training.as_mut().expect("it was trained");
    training.features[0] = evil.to_owned();
    training
        .hyperparameters
        .insert(evil.to_owned(), evil.to_owned());
    let slices = &mut input.evaluation.as_mut().expect("it was evaluated").slices;
    let mut slice = slices.remove("sex").expect("a slice");
    slice.groups[0].group = evil.to_owned();
    slices.insert(evil.to_owned(), slice);
    let html = render(&input);
    assert!(!html.contains("<script"), "a script came through");
    assert!(!html.contains("<img"), "a picture came through");
    assert_eq!(html.matches("</style>").count(), 1);
}

#[test]
fn a_report_of_anything_is_of_bounded_size() {
    let long = "x".repeat(100_000);
    let mut input = refused();
    let many = |number: usize| (0..number).map(|index| format!("{index}{long}"));
    input.outcome = Outcome::Refused {
        reasons: many(50).collect(),
    };
    input.sources = (0..500)
        .map(|_| source(&long, 1_000, &[(&long, 1)]))
        .collect();
    input.profile = (0..500)
        .map(|_| category(&long, &long, &[(long.as_str(), 9); 30]))
        .collect();
    input.training = Some(Training {
        features: many(300).collect(),
        ..training(100_000)
    });
    input.gate = (0..300)
        .map(|_| check(&long, false, long.clone()))
        .collect();
    let html = render(&input);
    look_at("bounded.html", &html);
    assert!(html.len() < 600_000, "{} bytes", html.len());
}
