use sandcast_little_sigstore::{LittleSigstore, Signing};
use serde_json::{Value, json};

use super::*;

const FILE: &[u8] = b"a component";
const WORKFLOW: &str = "https://github.com/acme/fetch/.github/workflows/release.yml@refs/tags/v1";
const GITHUB: &str = "https://token.actions.githubusercontent.com";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

fn by() -> Signing<'static> {
    Signing::by(WORKFLOW, GITHUB)
}

fn root(little: &LittleSigstore) -> TrustRoot {
    TrustRoot::parse(&little.trusted_root().to_string()).expect("a root of trust")
}

fn fault(bundle: &Value, root: &TrustRoot) -> BundleFault {
    verify(FILE, &bundle.to_string(), root).expect_err("it must not hold")
}

#[test]
fn a_signature_and_a_provenance_hold_and_say_who_and_when() {
    let little = LittleSigstore::new();
    let root = root(&little);
    let bundle = little.sign(FILE, &by()).to_string();
    let found = verify(FILE, &bundle, &root).expect("it holds");
    assert_eq!(
        (found.identity.as_str(), found.issuer.as_str()),
        (WORKFLOW, GITHUB)
    );
    assert_eq!(found.log_index, 4711);
    assert_eq!(found.trust_root, root.digest());
    assert_eq!(found.statement, None);
    let age = seconds_ago(&found);
    assert!((900..1200).contains(&age), "{age}");
    let person = Signing::by("ann@acme.example", "https://accounts.example");
    let bundle = little.sign(FILE, &person).to_string();
    let found = verify(FILE, &bundle, &root).expect("it holds");
    assert_eq!(found.identity, "ann@acme.example");
    let bundle = little.attest(FILE, PROVENANCE, &by()).to_string();
    let found = verify(FILE, &bundle, &root).expect("it holds");
    assert_eq!(found.statement.as_deref(), Some(PROVENANCE));
}

fn seconds_ago(found: &sandcast_audit::CertifiedSigner) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_secs()).expect("not so long");
    now - found.time.as_second()
}

#[test]
fn another_file_is_not_signed() {
    let little = LittleSigstore::new();
    let root = root(&little);
    for bundle in [
        little.sign(b"another", &by()),
        little.attest(b"another", PROVENANCE, &by()),
    ] {
        let fault = fault(&bundle, &root);
        assert!(matches!(fault, BundleFault::OtherFile { .. }), "{fault}");
    }
    // Nor does a signature count that only says to be of this file.
    let mut lies = little.sign(b"another", &by());
    lies["messageSignature"]["messageDigest"] =
        little.sign(FILE, &by())["messageSignature"]["messageDigest"].clone();
    let fault = fault(&lies, &root);
    assert!(matches!(fault, BundleFault::OtherFile { .. }), "{fault}");
}

#[test]
fn nothing_holds_under_the_root_of_somebody_else() {
    let (little, other) = (LittleSigstore::new(), LittleSigstore::new());
    let bundle = little.sign(FILE, &by());
    let found = fault(&bundle, &root(&other));
    assert!(matches!(found, BundleFault::Log { .. }), "{found}");

    // Each part alone of somebody else.
    let authority = LittleSigstore {
        authority: other.authority.clone(),
        ..little.clone()
    };
    let found = fault(&authority.sign(FILE, &by()), &root(&little));
    assert!(matches!(found, BundleFault::Certificate { .. }), "{found}");
    let certificates = LittleSigstore {
        certificates: other.certificates.clone(),
        ..little.clone()
    };
    let found = fault(&certificates.sign(FILE, &by()), &root(&little));
    assert!(matches!(found, BundleFault::Certificate { .. }), "{found}");
    assert!(
        found.to_string().contains("signed certificate timestamp"),
        "{found}"
    );
    let log = LittleSigstore {
        log: other.log.clone(),
        ..little.clone()
    };
    let found = fault(&log.sign(FILE, &by()), &root(&little));
    assert!(matches!(found, BundleFault::Log { .. }), "{found}");
    // A log that is known has not signed for one that is not.
    let mut both = little.trusted_root();
    let tlogs = other.trusted_root()["tlogs"][0].clone();
    both["tlogs"].as_array_mut().expect("a list").push(tlogs);
    let both = TrustRoot::parse(&both.to_string()).expect("a root of trust");
    verify(FILE, &bundle.to_string(), &both).expect("it holds");
    let mut mixed = little.sign(FILE, &by());
    let entries = "/verificationMaterial/tlogEntries/0/inclusionProof/checkpoint/envelope";
    let text = mixed
        .pointer(entries)
        .and_then(Value::as_str)
        .expect("a note");
    let (note, _) = text.rsplit_once("\n\n").expect("a note");
    let foreign = log_checkpoint(&other, note);
    *mixed.pointer_mut(entries).expect("a note") = json!(foreign);
    let found = fault(&mixed, &both);
    assert!(matches!(found, BundleFault::Log { .. }), "{found}");
}

/// The text of a checkpoint, signed by another log.
fn log_checkpoint(by: &LittleSigstore, note: &str) -> String {
    use base64::Engine as _;
    use rcgen::SigningKey as _;
    let id = by.trusted_root()["tlogs"][0]["logId"]["keyId"].clone();
    let engine = base64::engine::general_purpose::STANDARD;
    let id = engine.decode(id.as_str().expect("a text")).expect("base64");
    let signature = by.log.sign(format!("{note}\n").as_bytes()).expect("signed");
    let signature = engine.encode([&id[..4], &signature].concat());
    format!("{note}\n\n\u{2014} log.example {signature}\n")
}

#[test]
fn a_certificate_must_be_in_a_log_for_code_and_valid_when_it_was_used() {
    let little = LittleSigstore::new();
    let root = root(&little);
    let cases = [
        (
            Signing {
                is_in_log: false,
                ..by()
            },
            "signed certificate timestamp",
        ),
        (
            Signing {
                is_for_code: false,
                ..by()
            },
            "certificate chain",
        ),
        (
            Signing {
                logged_after: -1,
                ..by()
            },
            "certificate",
        ),
        (
            Signing {
                logged_after: 601,
                ..by()
            },
            "certificate",
        ),
        (
            Signing {
                identity: None,
                ..by()
            },
            "names no e-mail address and no URI",
        ),
        (
            Signing {
                issuer: None,
                ..by()
            },
            "who issued the identity",
        ),
    ];
    for (signing, words) in cases {
        let found = fault(&little.sign(FILE, &signing), &root);
        assert!(
            matches!(found, BundleFault::Certificate { .. }),
            "{signing:?}: {found}"
        );
        assert!(found.to_string().contains(words), "{signing:?}: {found}");
    }
    // The first and the last second count.
    for logged_after in [0, 600] {
        let bundle = little.sign(
            FILE,
            &Signing {
                logged_after,
                ..by()
            },
        );
        verify(FILE, &bundle.to_string(), &root).expect("it holds");
    }
    let later = little.sign(
        FILE,
        &Signing {
            logged_after: 5000,
            ..by()
        },
    );
    let found = fault(&later, &root);
    assert!(found.to_string().contains("in the future"), "{found}");
}

#[test]
fn every_part_of_an_entry_must_be_there_and_unchanged() {
    const ENTRY: &str = "/verificationMaterial/tlogEntries/0";
    let little = LittleSigstore::new();
    let root = root(&little);
    let bundle = little.sign(FILE, &by());
    let other = little.sign(b"another", &by());
    let entry = |path: &str| format!("{ENTRY}{path}");
    let replaced = [
        (entry("/inclusionPromise"), Value::Null),
        (entry("/inclusionProof"), Value::Null),
        (entry("/integratedTime"), json!("1700000000")),
        (entry("/integratedTime"), json!("0")),
        (entry("/logIndex"), json!("4712")),
        (entry("/inclusionProof/logIndex"), json!("0")),
        (entry("/inclusionProof/treeSize"), json!("4")),
        (
            entry("/inclusionProof/rootHash"),
            other
                .pointer(&entry("/inclusionProof/rootHash"))
                .cloned()
                .unwrap_or_default(),
        ),
        (
            entry("/inclusionProof/hashes/0"),
            json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ),
        (entry("/inclusionProof/checkpoint/envelope"), json!("")),
        (
            entry("/canonicalizedBody"),
            other
                .pointer(&entry("/canonicalizedBody"))
                .cloned()
                .unwrap_or_default(),
        ),
        (
            ENTRY.to_owned(),
            other.pointer(ENTRY).cloned().unwrap_or_default(),
        ),
        ("/verificationMaterial/tlogEntries".to_owned(), json!([])),
    ];
    for (path, value) in replaced {
        let mut changed = bundle.clone();
        *changed.pointer_mut(&path).expect(&path) = value;
        let found = fault(&changed, &root);
        let is_wanted = matches!(
            found,
            BundleFault::Log { .. }
                | BundleFault::OtherFile { .. }
                | BundleFault::Certificate { .. }
                | BundleFault::Time { .. }
                | BundleFault::Malformed { .. }
        );
        assert!(is_wanted, "{path}: {found}");
    }
    let mut twice = bundle.clone();
    let entries = &mut twice["verificationMaterial"]["tlogEntries"];
    *entries = json!([entries[0], entries[0]]);
    assert!(fault(&twice, &root).to_string().contains("more than one"));
    let mut stamped = bundle;
    stamped["verificationMaterial"]["timestampVerificationData"] =
        json!({ "rfc3161Timestamps": [{ "signedTimestamp": "MAA=" }] });
    let found = fault(&stamped, &root);
    assert!(matches!(found, BundleFault::Time { .. }), "{found}");
}

#[test]
fn what_is_no_bundle_or_another_kind_is_told_apart() {
    let little = LittleSigstore::new();
    let root = root(&little);
    let bundle = little.sign(FILE, &by());
    for text in ["", "nonsense", "{}", "[1]", &"[".repeat(100_000)] {
        let found = verify(FILE, text, &root).expect_err("no bundle");
        assert!(matches!(found, BundleFault::Malformed { .. }), "{found}");
        assert!(found.to_string().len() < 500, "{found}");
    }
    let long = format!("{}{}", bundle, " ".repeat(MAX_BUNDLE_BYTES));
    let found = verify(FILE, &long, &root).expect_err("too long");
    assert!(matches!(found, BundleFault::TooLarge { .. }), "{found}");
    let mut old = bundle.clone();
    old["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.2");
    assert!(
        fault(&old, &root)
            .to_string()
            .contains("version is not 0.3")
    );
    let mut bare = bundle;
    let material = bare["verificationMaterial"]
        .as_object_mut()
        .expect("an object");
    material.remove("certificate");
    material.insert("publicKey".to_owned(), json!({ "hint": "x" }));
    assert!(fault(&bare, &root).to_string().contains("names nobody"));
    let failed = little.attest(
        FILE,
        "https://in-toto.io/attestation/test-result/v0.1",
        &by(),
    );
    let found = fault(&failed, &root);
    assert!(
        found
            .to_string()
            .contains("does not say where the file is from"),
        "{found}"
    );
}

#[test]
fn no_changed_byte_makes_another_signer_or_a_panic() {
    let little = LittleSigstore::new();
    let root = root(&little);
    for bundle in [
        little.sign(FILE, &by()),
        little.attest(FILE, PROVENANCE, &by()),
    ] {
        let text = bundle.to_string();
        let wanted = verify(FILE, &text, &root).expect("it holds");
        for place in (0..text.len()).step_by(7) {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            if let Ok(found) = verify(FILE, &changed, &root) {
                assert_eq!(found, wanted, "{changed}");
            }
        }
    }
}

#[test]
fn a_root_of_trust_is_checked_before_anything_is_held_against_it() {
    let little = LittleSigstore::new();
    let whole = little.trusted_root();
    for (field, words) in [
        ("tlogs", "no transparency log"),
        ("ctlogs", "no certificate log"),
        ("certificateAuthorities", "no certificate authority"),
    ] {
        let mut without = whole.clone();
        without[field] = json!([]);
        let found = TrustRoot::parse(&without.to_string()).expect_err(words);
        assert!(found.to_string().contains(words), "{found}");
    }
    let mut odd = whole.clone();
    odd["tlogs"][0]["publicKey"]["rawBytes"] = json!("AAAA");
    for text in ["", "{}", &odd.to_string()] {
        let found = TrustRoot::parse(text).expect_err("no root");
        assert!(matches!(found, RootFault::Malformed { .. }), "{found}");
    }
    let long = format!("{whole}{}", " ".repeat(MAX_ROOT_BYTES));
    let found = TrustRoot::parse(&long).expect_err("too long");
    assert!(matches!(found, RootFault::TooLarge { .. }), "{found}");
}
