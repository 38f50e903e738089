use sandcast_audit::Event;

use super::*;
use crate::load::LoadError;
use crate::testing::{Bench, configuring};
use crate::{Grants, inspect};

fn key(name: &str) -> LogKey {
    LogKey::generate(name).expect("random")
}

fn rule(keys: &[&LogKey]) -> TrustRule {
    TrustRule {
        required: true,
        keys: keys.iter().map(|key| key.verifier()).collect(),
    }
}

fn component() -> (Vec<u8>, Inspection) {
    let bytes = configuring("");
    let inspection = inspect(&bytes).expect("a component");
    (bytes, inspection)
}

#[test]
fn what_a_trusted_key_signed_is_trusted() {
    let (_, component) = component();
    let (acme, other) = (key("acme.example"), key("other.example"));
    let note = sign(&component, &acme, None).expect("signed");
    assert!(note.starts_with(&format!(
        "{HEADING}\ndigest {}\nid test/guest\nversion 1.2.3\nrole policy\n\n",
        component.digest
    )));
    let found = check_trust(&component, Some(&note), Some(&rule(&[&other, &acme])));
    assert_eq!(found, Ok(vec![acme.verifier()]));
    assert_eq!(check_trust(&component, None, None), Ok(Vec::new()));
}

#[test]
fn what_is_unsigned_or_signed_by_a_stranger_is_refused_where_it_must_be_signed() {
    let (_, component) = component();
    let (acme, other) = (key("acme.example"), key("other.example"));
    let note = sign(&component, &other, None).expect("signed");
    let mut rule = rule(&[&acme]);
    assert_eq!(
        check_trust(&component, None, Some(&rule)),
        Err(SignatureError::Missing)
    );
    let error = check_trust(&component, Some(&note), Some(&rule)).expect_err("a stranger");
    assert!(error.to_string().contains("other.example"), "{error}");
    assert!(error.to_string().contains("`trust.policy.keys`"), "{error}");
    rule.required = false;
    assert_eq!(check_trust(&component, None, Some(&rule)), Ok(Vec::new()));
    assert_eq!(
        check_trust(&component, Some(&note), Some(&rule)),
        Ok(Vec::new())
    );
}

#[test]
fn a_key_of_the_same_name_is_another_key() {
    let (_, component) = component();
    let (acme, impostor) = (key("acme.example"), key("acme.example"));
    let note = sign(&component, &impostor, None).expect("signed");
    assert!(matches!(
        check_trust(&component, Some(&note), Some(&rule(&[&acme]))),
        Err(SignatureError::OtherKey { .. })
    ));
}

#[test]
fn any_changed_character_of_a_signature_is_refused_even_where_none_is_required() {
    let (_, component) = component();
    let acme = key("acme.example");
    let note = sign(&component, &acme, None).expect("signed");
    let mut rule = rule(&[&acme]);
    for place in 0..note.len() {
        let mut bytes = note.clone().into_bytes();
        bytes[place] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else {
            continue;
        };
        rule.required = true;
        let found = check_trust(&component, Some(&changed), Some(&rule));
        assert!(found.is_err(), "{changed}");
    }
    // The first byte of the signature itself, behind the hash of the key.
    rule.required = false;
    let (start, line) = note.rsplit_once(' ').expect("a signature");
    let other = if line.as_bytes()[20] == b'A' {
        "B"
    } else {
        "A"
    };
    let mut line = line.to_owned();
    line.replace_range(20..21, other);
    let changed = format!("{start} {line}");
    assert_eq!(
        check_trust(&component, Some(&changed), Some(&rule)),
        Err(SignatureError::Forged {
            key: "acme.example".to_owned()
        })
    );
}

#[test]
fn a_signature_of_another_component_is_refused() {
    let (_, component) = component();
    let other = inspect(&configuring("(nop)")).expect("a component");
    let acme = key("acme.example");
    let note = sign(&other, &acme, None).expect("signed");
    let error = check_trust(&component, Some(&note), Some(&rule(&[&acme])));
    let error = error.expect_err("another component").to_string();
    assert!(error.contains(&component.digest.to_string()), "{error}");
    assert!(error.contains(&other.digest.to_string()), "{error}");
    // What the key signed for other ends is no signature of a plugin.
    let checkpoint = acme.sign("sandcast/log\n1\nAAAA\n");
    assert_eq!(
        verify(&component, Some(&checkpoint), &[acme.verifier()]),
        Err(SignatureError::Malformed)
    );
}

#[test]
fn several_may_sign_and_signing_again_adds_nothing() {
    let (_, component) = component();
    let (acme, house) = (key("acme.example"), key("house.example"));
    let first = sign(&component, &acme, None).expect("signed");
    let both = sign(&component, &house, Some(&first)).expect("signed");
    for key in [&acme, &house] {
        let found = verify(&component, Some(&both), &[key.verifier()]);
        assert_eq!(found, Ok(vec![key.verifier()]));
    }
    let keys = [acme.verifier(), house.verifier(), acme.verifier()];
    let found = verify(&component, Some(&both), &keys);
    assert_eq!(found, Ok(keys[..2].to_vec()), "each once");
    assert_eq!(sign(&component, &house, Some(&both)).as_ref(), Ok(&both));
    assert_eq!(signers(&component, &both).expect("a note").len(), 2);
    // A note of something else is not carried on.
    let other = inspect(&configuring("(nop)")).expect("a component");
    let fresh = sign(&other, &house, Some(&both)).expect("signed");
    assert_eq!(signers(&other, &fresh).expect("a note").len(), 1);
}

#[tokio::test]
async fn the_sandbox_refuses_before_it_compiles_and_has_it_on_record() {
    let (bytes, component) = component();
    let acme = key("acme.example");
    let rule = rule(&[&acme]);
    let note = sign(&component, &acme, None).expect("signed");
    let bench = Bench::new();
    let load = async |bytes: &[u8], signature: Option<&str>| {
        let origin = crate::Origin {
            signature,
            trust: Some(&rule),
        };
        let grants = Grants::default();
        let loading = bench
            .sandbox
            .load_from("guest", bytes, Role::Policy, grants, origin);
        loading.await.map(|_| ())
    };
    load(&bytes, Some(&note)).await.expect("signed");
    let changed = configuring("(nop)");
    let reasons = [
        load(&bytes, None).await,
        load(&changed, Some(&note)).await,
        load(&bytes, Some("nonsense")).await,
    ];
    for refused in &reasons {
        assert!(
            matches!(refused, Err(LoadError::Untrusted { name, .. }) if name == "guest"),
            "{refused:?}"
        );
    }
    let events = bench.events();
    assert!(
        matches!(&events[0], Event::PluginLoaded { signers, .. } if *signers == [acme.verifier()]),
        "{events:?}"
    );
    let refused = events.iter().filter_map(|event| match event {
        Event::PluginRefused { reason, .. } => Some(reason),
        _ => None,
    });
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused.len(), 3);
    assert!(refused[0].contains("not signed"), "{refused:?}");
    // A key that may sign another role is a stranger's here.
    let mut rule_of_another_role = rule.clone();
    rule_of_another_role.keys = vec![key("adapters.example").verifier()];
    let origin = crate::Origin {
        signature: Some(&note),
        trust: Some(&rule_of_another_role),
    };
    let loading = bench
        .sandbox
        .load_from("guest", &bytes, Role::Policy, Grants::default(), origin);
    let error = loading.await.map(|_| ()).expect_err("another role's key");
    assert!(error.to_string().contains("`trust.policy.keys`"), "{error}");
}

#[tokio::test]
async fn the_operators_rule_holds_beside_that_of_the_pipeline() {
    let (bytes, component) = component();
    let (acme, house) = (key("acme.example"), key("house.example"));
    let by_acme = sign(&component, &acme, None).expect("signed");
    let by_both = sign(&component, &house, Some(&by_acme)).expect("signed");
    let bench = Bench::with(|config| {
        config.operator.trust.insert(Role::Policy, rule(&[&house]));
    });
    let of_pipeline = rule(&[&acme]);
    let load = async |signature: Option<&str>, trust: Option<&TrustRule>| {
        let origin = crate::Origin { signature, trust };
        let grants = Grants::default();
        let loading = bench
            .sandbox
            .load_from("guest", &bytes, Role::Policy, grants, origin);
        loading.await.map(|_| ())
    };
    for (signature, trust) in [
        (None, None),
        (Some(by_acme.as_str()), None),
        (Some(by_acme.as_str()), Some(&of_pipeline)),
    ] {
        let refused = load(signature, trust).await;
        assert!(
            matches!(&refused, Err(LoadError::UntrustedByOperator { name, .. }) if name == "guest"),
            "{refused:?}"
        );
    }
    load(Some(&by_both), Some(&of_pipeline))
        .await
        .expect("both");
    load(Some(&by_both), None).await.expect("the operator's");
    let signers = bench.events().into_iter().filter_map(|event| match event {
        Event::PluginLoaded { signers, .. } => Some(signers),
        _ => None,
    });
    let signers: Vec<_> = signers.collect();
    assert_eq!(
        signers,
        [
            vec![acme.verifier(), house.verifier()],
            vec![house.verifier()]
        ]
    );
}
