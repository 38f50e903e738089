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
        identities: Vec::new(),
    }
}

fn noted(note: Option<&str>) -> Signatures<'_> {
    Signatures { note, bundle: None }
}

/// Holds a component to a rule by its note alone.
fn held(
    component: &Inspection,
    note: Option<&str>,
    rule: Option<&TrustRule>,
) -> Result<Vec<VerifierKey>, SignatureError> {
    let signers = check_trust(component, b"", noted(note), rule)?;
    assert_eq!(signers.identities, []);
    Ok(signers.keys)
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
    let found = held(&component, Some(&note), Some(&rule(&[&other, &acme])));
    assert_eq!(found, Ok(vec![acme.verifier()]));
    assert_eq!(held(&component, None, None), Ok(Vec::new()));
}

#[test]
fn what_is_unsigned_or_signed_by_a_stranger_is_refused_where_it_must_be_signed() {
    let (_, component) = component();
    let (acme, other) = (key("acme.example"), key("other.example"));
    let note = sign(&component, &other, None).expect("signed");
    let mut rule = rule(&[&acme]);
    assert_eq!(
        held(&component, None, Some(&rule)),
        Err(SignatureError::Missing)
    );
    let error = held(&component, Some(&note), Some(&rule)).expect_err("a stranger");
    assert!(error.to_string().contains("other.example"), "{error}");
    assert!(error.to_string().contains("`trust.policy.keys`"), "{error}");
    rule.required = false;
    assert_eq!(held(&component, None, Some(&rule)), Ok(Vec::new()));
    assert_eq!(held(&component, Some(&note), Some(&rule)), Ok(Vec::new()));
}

#[test]
fn a_key_of_the_same_name_is_another_key() {
    let (_, component) = component();
    let (acme, impostor) = (key("acme.example"), key("acme.example"));
    let note = sign(&component, &impostor, None).expect("signed");
    assert!(matches!(
        held(&component, Some(&note), Some(&rule(&[&acme]))),
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
        let found = held(&component, Some(&changed), Some(&rule));
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
        held(&component, Some(&changed), Some(&rule)),
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
    let error = held(&component, Some(&note), Some(&rule(&[&acme])));
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
            signatures: noted(signature),
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
        signatures: noted(Some(&note)),
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
        let origin = crate::Origin {
            signatures: noted(signature),
            trust,
        };
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

mod by_identity {
    use sandcast_little_sigstore::{LittleSigstore, Signing};
    use sandcast_sigstore::BundleFault;

    use super::*;

    const GITHUB: &str = "https://token.actions.githubusercontent.com";
    const RELEASE: &str =
        "https://github.com/acme/fetch/.github/workflows/release.yml@refs/tags/v1.0.0";

    fn identity(little: &LittleSigstore, identity: &str) -> IdentityRule {
        IdentityRule {
            identity: identity.to_owned(),
            issuer: GITHUB.to_owned(),
            trust_root: little.trusted_root().to_string().into(),
            trust_root_digest: None,
        }
    }

    fn rule_of(identities: Vec<IdentityRule>) -> TrustRule {
        TrustRule {
            required: true,
            keys: Vec::new(),
            identities,
        }
    }

    fn check(bundle: Option<&str>, rule: &TrustRule) -> Result<Signers, SignatureError> {
        let (bytes, inspection) = component();
        let signatures = Signatures { note: None, bundle };
        check_trust(&inspection, &bytes, signatures, Some(rule))
    }

    #[test]
    fn whom_a_rule_names_may_sign_and_nobody_else() {
        let (little, other) = (LittleSigstore::new(), LittleSigstore::new());
        let (bytes, _) = component();
        let bundle = little
            .sign(&bytes, &Signing::by(RELEASE, GITHUB))
            .to_string();
        for named in [
            RELEASE,
            "https://github.com/acme/fetch/.github/workflows/release.yml@*",
            "https://github.com/acme/*",
        ] {
            let rule = rule_of(vec![identity(&other, RELEASE), identity(&little, named)]);
            let signers = check(Some(&bundle), &rule).expect(named);
            assert_eq!(signers.keys, []);
            assert_eq!(signers.identities[0].identity, RELEASE);
            let shown = format!("{RELEASE} (issued by {GITHUB})");
            assert_eq!(signers.names(), [shown]);
        }
        let mut rule = rule_of(vec![identity(&little, "https://github.com/acme/other/*")]);
        let stranger = check(Some(&bundle), &rule).expect_err("another identity");
        assert!(stranger.to_string().contains(RELEASE), "{stranger}");
        assert!(
            stranger.to_string().contains("`trust.policy.identities`"),
            "{stranger}"
        );
        assert_eq!(check(None, &rule), Err(SignatureError::NoBundle));
        // Where none is required, a stranger's is worth as much as none, and a broken one is refused.
        rule.required = false;
        assert_eq!(check(Some(&bundle), &rule), Ok(Signers::default()));
        assert_eq!(check(None, &rule), Ok(Signers::default()));
        let broken = check(Some("{}"), &rule).expect_err("it is broken");
        assert!(
            matches!(
                broken,
                SignatureError::Bundle(BundleFault::Malformed { .. })
            ),
            "{broken}"
        );
        let mut rule = rule_of(vec![identity(&little, RELEASE)]);
        rule.identities[0].issuer = "https://accounts.example".to_owned();
        let issuer = check(Some(&bundle), &rule).expect_err("another issuer");
        assert!(
            matches!(issuer, SignatureError::OtherIdentity { .. }),
            "{issuer}"
        );
        let rule = rule_of(vec![identity(&other, RELEASE)]);
        let root = check(Some(&bundle), &rule).expect_err("another root");
        assert!(
            matches!(root, SignatureError::Bundle(BundleFault::Log { .. })),
            "{root}"
        );
        let changed = little
            .sign(b"another", &Signing::by(RELEASE, GITHUB))
            .to_string();
        let rule = rule_of(vec![identity(&little, RELEASE)]);
        let changed = check(Some(&changed), &rule).expect_err("another component");
        assert!(
            matches!(
                changed,
                SignatureError::Bundle(BundleFault::OtherFile { .. })
            ),
            "{changed}"
        );
    }

    #[test]
    fn a_key_or_an_identity_is_enough_and_a_broken_signature_never_is() {
        let little = LittleSigstore::new();
        let (bytes, inspection) = component();
        let (acme, stranger) = (key("acme.example"), key("stranger.example"));
        let note = sign(&inspection, &acme, None).expect("signed");
        let strange = sign(&inspection, &stranger, None).expect("signed");
        let bundle = little
            .sign(&bytes, &Signing::by(RELEASE, GITHUB))
            .to_string();
        let mut rule = rule_of(vec![identity(&little, RELEASE)]);
        rule.keys.push(acme.verifier());
        let check = |note: Option<&str>, bundle: Option<&str>| {
            check_trust(
                &inspection,
                &bytes,
                Signatures { note, bundle },
                Some(&rule),
            )
        };
        let both = check(Some(&note), Some(&bundle)).expect("signed by both");
        assert_eq!((both.keys.len(), both.identities.len()), (1, 1));
        check(Some(&note), None).expect("signed by the key");
        check(None, Some(&bundle)).expect("signed by the identity");
        check(Some(&strange), Some(&bundle)).expect("signed by the identity");
        assert_eq!(check(None, None), Err(SignatureError::Unsigned));
        let other = check(Some(&strange), None).expect_err("a stranger");
        assert!(matches!(other, SignatureError::OtherKey { .. }), "{other}");
        let broken = check(Some("nonsense"), Some(&bundle)).expect_err("a broken note");
        assert_eq!(broken, SignatureError::Malformed);
        let broken = check(Some(&note), Some("nonsense")).expect_err("a broken bundle");
        assert!(matches!(broken, SignatureError::Bundle(_)), "{broken}");
    }

    #[test]
    fn a_root_of_trust_is_read_once_and_may_be_pinned() {
        let little = LittleSigstore::new();
        let text = little.trusted_root().to_string();
        let mut rule = rule_of(vec![identity(&little, RELEASE)]);
        rule.identities[0].trust_root = "root.json".into();
        let unread = check(Some("{}"), &rule).expect_err("it was not read");
        assert!(
            unread.to_string().contains("`root.json` was not read"),
            "{unread}"
        );
        let put = |rule: &mut TrustRule, text: &str| {
            rule.put_roots_in(Role::Policy, |path| {
                assert_eq!(path, "root.json");
                Ok(text.to_owned())
            })
        };
        let fault = put(&mut rule.clone(), "nonsense").expect_err("it is none");
        assert_eq!(fault.path, "trust.policy.identities[0].trust_root");
        rule.identities[0].trust_root_digest = Some(sandcast_audit::Digest::of(b"another"));
        let fault = put(&mut rule.clone(), &text).expect_err("it is another");
        assert!(fault.message.contains("is wanted"), "{}", fault.message);
        rule.identities[0].trust_root_digest = Some(sandcast_audit::Digest::of(text.as_bytes()));
        put(&mut rule, &text).expect("the one that is wanted");
        assert!(rule.identities[0].has_root());
        // As it is kept with a model, it needs no file any more.
        let kept = serde_json::to_string(&rule).expect("JSON");
        let mut kept: TrustRule = serde_json::from_str(&kept).expect("a rule");
        assert_eq!(kept, rule);
        kept.put_roots_in(Role::Policy, |path| panic!("{path} is read"))
            .expect("it is there");
    }

    #[test]
    fn rules_that_would_let_anybody_in_are_none() {
        let little = LittleSigstore::new();
        let problems = |named: &str, issuer: &str| {
            let mut identity = identity(&little, named);
            identity.issuer = issuer.to_owned();
            rule_of(vec![identity]).problems(Role::Adapter)
        };
        for named in [
            "*",
            "https://*",
            "https://github.com*",
            "https:///*",
            "*@acme.example",
            "https://github.com/*/fetch",
            "ann*",
            "ann",
            "",
            "ann@acme.example ",
        ] {
            let found = problems(named, GITHUB);
            assert_eq!(found.len(), 1, "{named}");
            assert_eq!(
                found[0].path, "trust.adapter.identities[0].identity",
                "{named}"
            );
        }
        for named in ["ann@acme.example", "https://github.com/acme/*", RELEASE] {
            assert_eq!(problems(named, GITHUB), [], "{named}");
        }
        for issuer in ["", "https://", "https://*", "http://accounts.example"] {
            let found = problems(RELEASE, issuer);
            assert_eq!(
                found[0].path, "trust.adapter.identities[0].issuer",
                "{issuer}"
            );
        }
        assert_eq!(rule_of(Vec::new()).problems(Role::Adapter).len(), 1);
    }

    #[tokio::test]
    async fn who_signed_by_sigstore_is_on_record() {
        let little = LittleSigstore::new();
        let (bytes, _) = component();
        let bundle = little
            .sign(&bytes, &Signing::by(RELEASE, GITHUB))
            .to_string();
        let bench = Bench::with(|config| {
            let rule = rule_of(vec![identity(&little, RELEASE)]);
            config.operator.trust.insert(Role::Policy, rule);
        });
        let load = async |bundle: Option<&str>| {
            let origin = crate::Origin {
                signatures: Signatures { note: None, bundle },
                trust: None,
            };
            let grants = Grants::default();
            let loading = bench
                .sandbox
                .load_from("guest", &bytes, Role::Policy, grants, origin);
            loading.await.map(|_| ())
        };
        load(Some(&bundle)).await.expect("signed");
        let refused = load(None).await;
        assert!(
            matches!(&refused, Err(LoadError::UntrustedByOperator { source, .. })
                if *source == SignatureError::NoBundle),
            "{refused:?}"
        );
        let events = bench.events();
        let Event::PluginLoaded { identities, .. } = &events[0] else {
            panic!("{events:?}");
        };
        let signer = &identities[0];
        assert_eq!(
            (signer.identity.as_str(), signer.issuer.as_str()),
            (RELEASE, GITHUB)
        );
        assert_eq!(signer.log_index, 4711);
    }
}
