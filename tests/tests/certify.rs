//! Plugins are tried out: the repository's own pass, hostile ones do not, and a certificate says
//! neither more nor less than what was signed.
//!
//! Apart from the other tests, for a trial measures what the whole process has grown by.

use std::fs;

use sandcast_audit::LogKey;
use sandcast_sandbox::{
    Certificate, CertificateError, Examination, TrialOptions, TrialVerdict as Verdict, examine,
    inspect,
};
use sandcast_tests::built;
use serde_json::{Value, json};

async fn tried(guest: &str, configuration: Value) -> Examination {
    let component = fs::read(built(guest)).expect("the guest");
    let options = TrialOptions {
        configuration,
        ..TrialOptions::default()
    };
    let examined = examine(&component, &options, |_| {}).await;
    examined.unwrap_or_else(|error| panic!("{guest}: {error}"))
}

/// The trials that came to something else than `passed`, a line each.
fn not_passed(examination: &Examination) -> Vec<String> {
    let others = examination.trials.iter();
    others
        .filter(|trial| trial.verdict != Verdict::Passed)
        .map(|trial| format!("{:?} {}: {}", trial.verdict, trial.id, trial.detail))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_party_plugins_pass() {
    for (guest, configuration) in [
        (
            "plugins/policy-cedar",
            json!({ "policies": "permit (principal, action, resource);" }),
        ),
        (
            "plugins/validator-rules",
            json!({ "rules": [
                { "rule": "not-null", "column": "name" },
                { "rule": "range", "column": "amount", "min": 0, "max": 50 },
                { "rule": "unique", "columns": ["count"] },
                { "rule": "regex", "column": "name", "pattern": "^[a-z]+$" },
            ] }),
        ),
        ("plugins/adapter-mlp", json!({ "epochs": 3 })),
        ("plugins/adapter-gbdt", json!({})),
        ("plugins/adapter-kmeans", json!({})),
        ("plugins/adapter-autoencoder", json!({ "epochs": 3 })),
    ] {
        let examination = tried(guest, configuration).await;
        assert!(
            examination.is_passed(),
            "{guest}: {:#?}",
            not_passed(&examination)
        );
        assert_eq!(not_passed(&examination), Vec::<String>::new(), "{guest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_plugins_do_not_pass() {
    for (behaviour, failed) in [
        ("trap", "answers"),
        ("unknown-rule", "answers"),
        ("twin-rules", "answers"),
    ] {
        let configuration = json!({ "behaviour": behaviour });
        let examination = tried("tests/guests/hostile-validator", configuration).await;
        assert!(!examination.is_passed(), "{behaviour}");
        let found = not_passed(&examination);
        assert!(
            found
                .iter()
                .any(|line| line.starts_with(&format!("Failed {failed}"))),
            "{behaviour}: {found:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_of_one_component_by_one_key() {
    let configuration = json!({ "policies": "permit (principal, action, resource);" });
    let examination = tried("plugins/policy-cedar", configuration).await;
    let component = fs::read(built("plugins/policy-cedar")).expect("the guest");
    let inspection = inspect(&component).expect("a component");
    let other = fs::read(built("plugins/validator-rules")).expect("the guest");
    let other = inspect(&other).expect("a component");
    let (house, stranger) = (
        LogKey::generate("house.example").expect("a key"),
        LogKey::generate("stranger.example").expect("a key"),
    );
    let keys = [house.verifier()];
    let certificate = Certificate::new(examination.clone(), Some(&house));
    // As it is when it was written down and read again.
    let text = serde_json::to_string(&certificate).expect("JSON");
    let certificate: Certificate = serde_json::from_str(&text).expect("JSON");
    assert_eq!(certificate.check(&inspection, &keys), Ok(house.verifier()));
    assert!(matches!(
        certificate.check(&other, &keys),
        Err(CertificateError::OtherComponent { .. })
    ));
    let by_stranger = Certificate::new(examination.clone(), Some(&stranger));
    assert!(matches!(
        by_stranger.check(&inspection, &keys),
        Err(CertificateError::OtherKey { .. })
    ));
    let unsigned = Certificate::new(examination, None);
    let error = unsigned.check(&inspection, &keys);
    assert_eq!(error, Err(CertificateError::Unsigned));
    // One detail, one verdict, one grant.
    for change in [
        |it: &mut Examination| it.trials[0].detail.push('!'),
        |it: &mut Examination| it.trials[0].verdict = Verdict::Failed,
        |it: &mut Examination| it.grants.clock = !it.grants.clock,
    ] {
        let mut changed = certificate.clone();
        change(&mut changed.examination);
        let error = changed.check(&inspection, &keys);
        assert_eq!(error, Err(CertificateError::Changed));
    }
    let mut failed = certificate.examination.clone();
    failed.trials[0].verdict = Verdict::Failed;
    let failed = Certificate::new(failed, Some(&house));
    assert!(matches!(
        failed.check(&inspection, &keys),
        Err(CertificateError::NotPassed { .. })
    ));
}
