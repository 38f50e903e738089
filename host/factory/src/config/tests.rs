use std::path::Path;

use miette::{GraphicalReportHandler, GraphicalTheme};
use sandcast_sandbox::{ControlPoint, Role, SqlConnection, StoreUrl};
use serde_json::json;

use super::{ConfigError, Pipeline};

/// A pipeline in which everything is right.
pub(crate) const GOOD: &str = r#"version: 1
name: loans
seed: 7
plugins:
  csv:
    source: ../plugins/csv
    role: connector
    grants:
      files: [{ host: data, guest: /data, access: read }]
      limits: { memory: 256MiB, call_timeout: 10m }
  rules: { source: rules.wasm, role: validator }
  cedar: { source: cedar.wasm, role: policy }
  mlp: { source: mlp.wasm, role: adapter, grants: { compute: { memory: 1GiB } } }
sources:
  branch: { plugin: csv, config: { path: /data/branch.csv, missing: ["", "NA"] } }
  web: { plugin: csv, config: { path: /data/web.csv } }
dataset:
  sql: SELECT * FROM branch UNION ALL SELECT * FROM web
validate:
  - { plugin: rules, config: { rules: [{ id: age, rule: range, column: age, min: 18 }] } }
policies:
  - { plugin: cedar, at: [train-start, promote], config: { policies: "permit(principal, action, resource);" } }
train:
  plugin: mlp
  task: binary-classification
  target: repaid
  positive: "yes"
  features: { exclude: [id] }
  hyperparameters: { hidden: [64, 32] }
evaluate: { slices: [sex], threshold: 0.5 }
gate:
  - metrics.auc >= 0.75
  - slices.sex.demographic_parity_difference <= 0.10
  - champion == null || metrics.auc >= champion.metrics.auc - 0.01
  - policy.promote == 'allow'
register: { model: loans, alias: champion }
"#;

fn parse(text: &str) -> Result<Pipeline, ConfigError> {
    Pipeline::parse(text, Path::new("pipeline.yaml"))
}

/// The diagnostic for the good pipeline with one thing made wrong.
fn diagnosed(right: &str, wrong: &str) -> String {
    assert_eq!(
        GOOD.matches(right).count(),
        1,
        "`{right}` is not there once"
    );
    let error = parse(&GOOD.replace(right, wrong)).expect_err("this must be refused");
    let mut drawn = format!("{error}\n");
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .render_report(&mut drawn, &error)
        .expect("a string takes everything");
    drawn
}

#[test]
fn what_is_right_is_taken_as_written() {
    let pipeline = parse(GOOD).expect("everything is right");
    let sections = &pipeline.sections;
    assert_eq!(sections.plugins["csv"].role, Role::Connector);
    assert_eq!(
        sections.plugins["csv"].grants.limits.memory.bytes(),
        256 << 20
    );
    assert_eq!(
        sections.plugins["csv"]
            .grants
            .limits
            .call_timeout
            .duration()
            .as_secs(),
        600
    );
    assert_eq!(
        sections.sources["branch"].config["missing"],
        json!(["", "NA"])
    );
    assert_eq!(
        sections.policies[0].at,
        [ControlPoint::TrainStart, ControlPoint::Promote]
    );
    assert_eq!(sections.train.split.test, 0.2);
    assert_eq!(sections.train.features.exclude, ["id"]);
    let here = std::env::current_dir().expect("a current folder");
    assert_eq!(pipeline.folder, here);
    assert_eq!(
        sections.plugins["csv"].grants.files[0].host,
        here.join("data")
    );
    assert!(sections.plugins["csv"].source.ends_with("plugins/csv"));
}

#[test]
fn the_digest_is_of_what_is_said_and_not_of_how() {
    let digest = |text: &str| parse(text).expect("everything is right").digest;
    let commented = GOOD.replace("seed: 7", "# a comment\nseed:    7");
    assert_eq!(digest(GOOD), digest(&commented));
    assert_ne!(digest(GOOD), digest(&GOOD.replace("seed: 7", "seed: 8")));
    let moved = Pipeline::parse(GOOD, Path::new("elsewhere/pipeline.yaml"));
    assert_eq!(digest(GOOD), moved.expect("everything is right").digest);
}

#[test]
fn features_may_be_a_list() {
    let list = GOOD.replace("features: { exclude: [id] }", "features: [age, income]");
    let features = parse(&list)
        .expect("a list is fine")
        .sections
        .train
        .features;
    assert_eq!(
        features.include,
        Some(vec!["age".to_owned(), "income".to_owned()])
    );
}

#[test]
fn mistakes_in_keys_types_and_values() {
    insta::assert_snapshot!("unknown-key", diagnosed("sources:\n", "souces:\n"));
    insta::assert_snapshot!(
        "unknown-key-inside",
        diagnosed("threshold: 0.5", "treshold: 0.5")
    );
    insta::assert_snapshot!(
        "unknown-key-in-grants",
        diagnosed("memory: 1GiB", "memry: 1GiB")
    );
    insta::assert_snapshot!("wrong-type", diagnosed("seed: 7", "seed: seven"));
    insta::assert_snapshot!(
        "wrong-quantity",
        diagnosed("memory: 256MiB", "memory: 256 parsecs")
    );
    insta::assert_snapshot!("wrong-role", diagnosed("role: connector", "role: conector"));
    insta::assert_snapshot!("missing-key", diagnosed("  target: repaid\n", ""));
    insta::assert_snapshot!("not-yaml", diagnosed("name: loans", "name: [loans"));
    insta::assert_snapshot!("twice", diagnosed("seed: 7", "seed: 7\nseed: 8"));
}

const SUPERVISED: &str = "  task: binary-classification\n  target: repaid\n  positive: \"yes\"\n";

/// The good pipeline as another task, sliced by nothing, with another gate.
fn as_task(train: &str, gate: &str) -> String {
    GOOD.replace(SUPERVISED, train)
        .replace("slices: [sex], ", "")
        .replace("metrics.auc >= 0.75", gate)
        .replace("  - slices.sex.demographic_parity_difference <= 0.10\n", "")
        .replace("metrics.auc >= champion.metrics.auc - 0.01", "true")
}

#[test]
fn kinds_without_a_target_need_none() {
    let anomaly = as_task("  task: anomaly-detection\n", "metrics.score_p99 < 9");
    let train = parse(&anomaly)
        .expect("an anomaly detection")
        .sections
        .train;
    assert_eq!((train.target, train.positive), (None, None));
    let labelled = "  task: anomaly-detection\n  target: repaid\n  positive: \"no\"\n";
    let labelled = as_task(
        labelled,
        "metrics.auc > 0.8 && metrics.precision_at_share > 0.5",
    );
    parse(&labelled).expect("an anomaly detection with labels to judge by");
    let clustering = as_task("  task: clustering\n", "metrics.silhouette > 0.2");
    parse(&clustering).expect("a clustering");
}

#[test]
fn mistakes_in_targets() {
    let refused = |train: &str, gate: &str| {
        let error = parse(&as_task(train, gate)).expect_err("this must be refused");
        error.to_string()
    };
    let some = "metrics.score_p50 >= 0";
    let cases = [
        refused("  task: regression\n", "metrics.rmse < 1"),
        refused(
            "  task: clustering\n  target: repaid\n",
            "metrics.inertia < 9",
        ),
        refused("  task: anomaly-detection\n  target: repaid\n", some),
        refused("  task: anomaly-detection\n  positive: \"no\"\n", some),
        // Without labels nothing is right or wrong.
        refused("  task: anomaly-detection\n", "metrics.auc > 0.8"),
        refused("  task: clustering\n", "metrics.auc > 0.8"),
    ];
    insta::assert_snapshot!("targets", cases.join("\n"));
    let clustering = as_task("  task: clustering\n", "metrics.inertia < 9");
    let sliced = clustering.replace("{ threshold: 0.5 }", "{ slices: [sex] }");
    let error = parse(&sliced).expect_err("slices").to_string();
    assert!(error.contains("has no slices"), "{error}");
    for share in ["0", "0.6", "-1", ".nan"] {
        let error = parse(&GOOD.replace("threshold: 0.5", &format!("share: {share}")));
        assert!(
            error
                .expect_err(share)
                .to_string()
                .contains("makes no sense")
        );
    }
}

#[test]
fn mistakes_in_references() {
    insta::assert_snapshot!(
        "no-such-plugin",
        diagnosed("web: { plugin: csv,", "web: { plugin: cvs,")
    );
    insta::assert_snapshot!(
        "plugin-of-another-role",
        diagnosed("  plugin: mlp\n", "  plugin: rules\n")
    );
    insta::assert_snapshot!(
        "gate-name",
        diagnosed("- metrics.auc >= 0.75", "- metrics.acu >= 0.75")
    );
    insta::assert_snapshot!(
        "gate-column",
        diagnosed("slices: [sex]", "slices: [age_band]")
    );
    insta::assert_snapshot!(
        "gate-syntax",
        diagnosed("- metrics.auc >= 0.75", "- metrics.auc >= ")
    );
    insta::assert_snapshot!(
        "gate-function",
        diagnosed("- metrics.auc >= 0.75", "- round(metrics.auc) == 1")
    );
    insta::assert_snapshot!(
        "no-query",
        diagnosed(
            "dataset:\n  sql: SELECT * FROM branch UNION ALL SELECT * FROM web\n",
            ""
        )
    );
    insta::assert_snapshot!("escaping-grant", diagnosed("host: data", "host: ../data"));
    insta::assert_snapshot!("no-positive", diagnosed("  positive: \"yes\"\n", ""));
    insta::assert_snapshot!(
        "no-such-file",
        diagnosed(
            "policies: \"permit(principal, action, resource);\"",
            "file: policy.cedar"
        )
    );
}

#[test]
fn every_problem_is_told() {
    let wrong = GOOD
        .replace("web: { plugin: csv,", "web: { plugin: cvs,")
        .replace("name: loans", "name: Loans & Sons")
        .replace("metrics.auc >= 0.75", "metrics.acu >= 0.75");
    let error = parse(&wrong).expect_err("three mistakes");
    let lines: Vec<usize> = error
        .problems()
        .iter()
        .map(|problem| problem.line)
        .collect();
    assert_eq!(lines, [2, 16, 32]);
}

#[test]
fn bombs_do_not_go_off() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let many = vec![before; 9].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{many}]\n"));
    }
    assert!(parse(&laughs).is_err());
    let deep = format!("version: {}1{}", "[".repeat(5000), "]".repeat(5000));
    assert!(parse(&deep).is_err());
    let deep = format!("{}x", "? ".repeat(5000));
    assert!(parse(&deep).is_err());
    assert!(parse("").is_err());
    assert!(parse("\u{0}").is_err());
}

#[test]
fn a_file_that_is_too_large_is_not_read() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("pipeline.yaml");
    std::fs::write(&path, "#".repeat(2 << 20))?;
    let error = Pipeline::load(folder.path()).expect_err("two mebibytes are too much");
    assert!(
        matches!(
            error,
            ConfigError::TooLarge {
                bytes: 2_097_152,
                ..
            }
        ),
        "{error}"
    );
    std::fs::remove_file(&path)?;
    let error = Pipeline::load(folder.path()).expect_err("there is no file");
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
    Ok(())
}

#[test]
fn files_are_put_into_the_configuration_of_policies() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(
        folder.path().join("policy.cedar"),
        "forbid(principal, action, resource);",
    )?;
    std::fs::write(folder.path().join("schema.json"), "{}")?;
    let config = "config: { file: policy.cedar, schema: { file: schema.json } }";
    let inline = "config: { policies: \"permit(principal, action, resource);\" }";
    let path = folder.path().join("pipeline.yaml");
    let with_file = Pipeline::parse(&GOOD.replace(inline, config), &path).expect("both are there");
    let expected = json!({ "policies": "forbid(principal, action, resource);", "schema": "{}" });
    assert_eq!(with_file.sections.policies[0].config, expected);

    std::fs::write(
        folder.path().join("policy.cedar"),
        "permit(principal, action, resource);",
    )?;
    let changed = Pipeline::parse(&GOOD.replace(inline, config), &path).expect("both are there");
    assert_ne!(
        with_file.digest, changed.digest,
        "the text takes part in the digest"
    );

    let outside = GOOD.replace(inline, "config: { file: ../policy.cedar }");
    let error = Pipeline::parse(&outside, &path).expect_err("the file is outside");
    assert!(
        error
            .to_string()
            .contains("leaves the folder of the pipeline"),
        "{error}"
    );
    Ok(())
}

#[test]
fn the_published_schema_is_current() -> std::io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipeline.schema.json");
    let current = format!("{:#}\n", super::schema());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &current)?;
    }
    let published = std::fs::read_to_string(&path)?;
    assert!(
        published == current,
        "run this test again with UPDATE_SCHEMA=1, and look at the diff"
    );
    Ok(())
}

#[test]
fn who_may_sign_is_a_role_with_keys() {
    let with = |trust: &str| parse(&format!("{GOOD}trust: {trust}\n"));
    let refused = |trust: &str| with(trust).expect_err("this must be refused").to_string();
    let nobody = refused("{ connector: { keys: [] } }");
    assert!(nobody.contains("nobody may sign a connector"), "{nobody}");
    let damaged = refused("{ connector: { keys: [acme] } }");
    assert!(damaged.contains("not a public key"), "{damaged}");
    assert!(refused("{ king: { keys: [] } }").contains("king"));
    // The example of C2SP `signed-note`.
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let trust = format!("{{ policy: {{ required: false, keys: [\"{key}\"] }} }}");
    let pipeline = with(&trust).expect("a rule");
    let rule = &pipeline.sections.trust[&Role::Policy];
    assert_eq!(
        (rule.required, rule.keys[0].to_string()),
        (false, key.to_owned())
    );
    assert_ne!(pipeline.digest, parse(GOOD).expect("good").digest);
}

#[test]
fn a_grant_is_led_where_its_connection_leads() {
    let granted = |grants: &str| {
        let grants =
            format!("{GOOD}connections: {{ warehouse: {{ sqlite: data/warehouse.sqlite }} }}\n")
                .replace("grants: {", &format!("grants: {{ {grants},"));
        parse(&grants)
    };
    let pipeline = granted("sql: [{ connection: warehouse, access: read, rows: 10 }], state: {}")
        .expect("everything is right");
    let here = std::env::current_dir().expect("a current folder");
    let leads = Some(SqlConnection::Sqlite(here.join("data/warehouse.sqlite")));
    let grants = pipeline
        .sections
        .plugins
        .values()
        .map(|plugin| &plugin.grants);
    let grants = grants.filter(|grants| !grants.sql.is_empty());
    let grants: Vec<_> = grants.collect();
    assert!(!grants.is_empty());
    for granted in &grants {
        assert_eq!(granted.sql[0].to, leads);
        let state = granted.state.as_ref().expect("it is granted");
        assert_eq!(
            state.pipeline.as_deref(),
            Some(pipeline.sections.name.as_str())
        );
    }
    let refused = |grants: &str| granted(grants).expect_err(grants).to_string();
    let unknown = refused("sql: [{ connection: warehose }]");
    assert!(
        unknown.contains("there is no connection `warehose`"),
        "{unknown}"
    );
    let inline = refused("sql: [{ connection: warehouse, to: { sqlite: /etc/passwd } }]");
    assert!(inline.contains("stands under `connections`"), "{inline}");
    let other = refused("state: { pipeline: another }");
    assert!(other.contains("state of its own pipeline"), "{other}");
    let outside = format!("{GOOD}connections: {{ w: {{ sqlite: ../w.sqlite }} }}\n");
    let outside = parse(&outside)
        .expect_err("it leaves the folder")
        .to_string();
    assert!(
        outside.contains("leaves the folder of the pipeline"),
        "{outside}"
    );
    let unnamed = format!("{GOOD}connections: {{ \"a b\": {{ sqlite: w.sqlite }} }}\n");
    let unnamed = parse(&unnamed).expect_err("no name").to_string();
    assert!(unnamed.contains("`a b` cannot be a name"), "{unnamed}");
    let text =
        "connections: { w: { postgres: { host: h.example, database: d, user: u, password: p } } }";
    parse(&format!("{GOOD}{text}\n")).expect_err("a password is a reference");
}

#[test]
fn a_grant_of_objects_is_led_to_its_store() {
    let granted = |grants: &str| {
        let grants = format!(
            "{GOOD}stores: {{ lake: {{ url: \"file:data/lake\" }}, far: {{ url: \"s3://far/raw\", region: x }} }}\n"
        )
        .replace("grants: {", &format!("grants: {{ {grants},"));
        parse(&grants)
    };
    let pipeline =
        granted("blob: [{ store: lake, prefix: raw/ }, { store: far, access: read-write }]")
            .expect("everything is right");
    let here = std::env::current_dir().expect("a current folder");
    let plugins = pipeline.sections.plugins.values();
    let granted_to: Vec<_> = plugins
        .filter(|plugin| !plugin.grants.blob.is_empty())
        .collect();
    assert!(!granted_to.is_empty());
    for plugin in granted_to {
        let urls: Vec<_> = plugin
            .grants
            .blob
            .iter()
            .map(|grant| grant.to.as_ref().map(|to| &to.url))
            .collect();
        let folder = StoreUrl::Folder(here.join("data/lake"));
        assert_eq!(
            urls,
            [Some(&folder), Some(&pipeline.sections.stores["far"].url)]
        );
    }
    for (grants, why) in [
        ("blob: [{ store: lak }]", "there is no store `lak`"),
        (
            "blob: [{ store: lake, to: { url: \"file:/etc\" } }]",
            "stands under `stores`",
        ),
    ] {
        let refused = granted(grants).expect_err(why).to_string();
        assert!(refused.contains(why), "{refused}");
    }
    for (stores, why) in [
        (
            "{ lake: { url: \"file:../lake\" } }",
            "leaves the folder of the pipeline",
        ),
        ("{ lake: { url: \"gs://lake\" } }", "is no store"),
        ("{ \"a b\": { url: \"file:x\" } }", "`a b` cannot be a name"),
        (
            "{ lake: { url: \"s3://lake\", credentials: { access_key: A, secret_key: B } } }",
            "unknown value `A`",
        ),
    ] {
        let refused = parse(&format!("{GOOD}stores: {stores}\n")).expect_err(why);
        let refused = format!("{refused:?}");
        assert!(refused.contains(why), "{refused}");
    }
}
