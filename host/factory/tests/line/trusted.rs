//! Who signed a plugin: asked when it is loaded for a run, and whenever its model is loaded.

use std::fs;
use std::path::PathBuf;

use sandcast_audit::{Event, LogKey};
use sandcast_factory::plan::signature_path;
use sandcast_factory::{InferenceError, ModelVersion, ServedModel, Workspace};
use sandcast_sandbox::{LoadError, OperatorRules, Role, SignatureError, TrustRule, inspect, sign};

use crate::bench::{Bench, plugins};

/// A pipeline whose adapter lies beside it.
struct Place {
    bench: Bench,
    adapter: PathBuf,
}

impl Place {
    fn new(trust: &str) -> Place {
        let bench = Bench::new();
        let built = sandcast_build::component_path(&plugins().join("adapter-mlp"));
        let adapter = bench.path("mlp.wasm");
        fs::copy(built.expect("a crate"), &adapter).expect("it is built");
        bench.write_pipeline(|text| {
            let folder = plugins().join("adapter-mlp").display().to_string();
            text.replace(&folder, "mlp.wasm") + trust
        });
        Place { bench, adapter }
    }

    fn sign(&self, key: &LogKey) {
        let component = inspect(&fs::read(&self.adapter).expect("there")).expect("a component");
        let path = signature_path(&self.adapter);
        let earlier = fs::read_to_string(&path).ok();
        let note = sign(&component, key, earlier.as_deref()).expect("signed");
        fs::write(path, note).expect("written");
    }

    /// The state, on a host whose operator lets this key sign adapters, if one.
    fn workspace(&self, key: Option<&LogKey>) -> Workspace {
        let mut operator = OperatorRules::default();
        if let Some(key) = key {
            let rule = TrustRule {
                required: true,
                keys: vec![key.verifier()],
                identities: Vec::new(),
            };
            operator.trust.insert(Role::Adapter, rule);
        }
        self.bench.workspace_under(operator)
    }

    async fn refusal(&self, key: Option<&LogKey>, version: &ModelVersion) -> LoadError {
        let loading = ServedModel::load(&self.workspace(key), version).await;
        match loading.err().expect("it must not be served") {
            InferenceError::Untrusted { source, .. } => *source,
            error => panic!("{error}"),
        }
    }
}

fn key(name: &str) -> LogKey {
    LogKey::generate(name).expect("random")
}

fn trusting(key: &LogKey) -> String {
    format!(
        "trust: {{ adapter: {{ keys: [\"{}\"] }} }}\n",
        key.verifier()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_served_under_the_rule_that_it_was_trained_under() {
    let (acme, house) = (key("acme.example"), key("house.example"));
    let place = Place::new(&trusting(&acme));
    let rejected = place.bench.is_rejected().await;
    assert!(
        rejected.reasons[0].contains("it is not signed"),
        "{:?}",
        rejected.reasons
    );
    place.sign(&acme);
    let completed = place.bench.completes().await;
    let told = completed.report.plugins.iter().find(|it| it.name == "mlp");
    let told = told.expect("it took part");
    assert_eq!(told.signers, [acme.verifier().to_string()]);
    let loaded = place.bench.events().into_iter().any(|event| {
        matches!(event, Event::PluginLoaded { name, signers, .. }
            if name == "mlp" && signers == [acme.verifier()])
    });
    assert!(loaded, "who signed is on record");

    let version = completed.version;
    let serve = ServedModel::load(&place.workspace(None), &version).await;
    serve.expect("signed by who may");
    let serve = ServedModel::load(&place.workspace(Some(&acme)), &version).await;
    serve.expect("and the operator says so too");

    // The signature is gone, or another, or the key is not trusted any more.
    let mut changed = version.clone();
    changed.vouched.signature = None;
    let refused = place.refusal(None, &changed).await;
    assert!(
        matches!(&refused, LoadError::Untrusted { source, .. } if *source == SignatureError::Missing),
        "{refused}"
    );
    changed.vouched.signature = Some("nonsense".to_owned());
    let refused = place.refusal(None, &changed).await;
    assert!(
        matches!(&refused, LoadError::Untrusted { source, .. } if *source == SignatureError::Malformed),
        "{refused}"
    );
    let refused = place.refusal(Some(&house), &version).await;
    assert!(
        matches!(
            &refused,
            LoadError::UntrustedByOperator {
                source: SignatureError::OtherKey { .. },
                ..
            }
        ),
        "{refused}"
    );

    // Signed by the key that is, the same model is renewed by a run.
    place.sign(&house);
    let again = place.bench.completes().await;
    assert!(!again.new);
    let serve = ServedModel::load(&place.workspace(Some(&house)), &again.version).await;
    serve.expect("signed by both");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_may_want_a_signature_where_the_pipeline_did_not() {
    let house = key("house.example");
    let place = Place::new("");
    let version = place.bench.completes().await.version;
    let serve = ServedModel::load(&place.workspace(None), &version).await;
    serve.expect("nobody asks for a signature");
    let refused = place.refusal(Some(&house), &version).await;
    let words = refused.to_string();
    assert!(words.contains("by the operator's rule of trust"), "{words}");
    assert!(words.contains("it is not signed"), "{words}");
}
