//! Permission: asked where the pipeline says, and never assumed.

use sandcast_audit::Event;
use sandcast_factory::{InferenceError, ServedModel};

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_permitted_does_not_happen() {
    for (action, stage) in [
        ("read", "connect people"),
        ("train", "permit"),
        ("promote", "gate"),
    ] {
        let bench = Bench::new();
        let policy = format!(
            "permit (principal, action, resource);\n\
             @id(\"not-now\") forbid (principal, action == Action::\"{action}\", resource);\n"
        );
        bench.write("policy.cedar", &policy);
        let rejected = bench.is_rejected().await;
        assert_eq!(rejected.stage, stage, "{:?}", rejected.reasons);
        let reason = rejected.reasons.join("; ");
        assert!(
            reason.contains("policy `cedar` does not allow to"),
            "{reason}"
        );
        assert!(reason.contains("not-now"), "{reason}");
        let decided = bench.events().into_iter().any(|event| {
            matches!(event, Event::Decided { effect, action: asked, .. }
                if effect == "deny" && asked == action)
        });
        assert!(decided, "the decision is in the audit log");
        let models = bench
            .workspace()
            .registry()
            .models()
            .expect("the state reads");
        assert!(models.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_see_the_numbers() {
    let bench = Bench::new();
    bench.write(
        "policy.cedar",
        "permit (principal == Pipeline::\"loans\", action in [Action::\"read\", Action::\"train\"], resource)\n\
         when { context.pipeline == \"loans\" };\n\
         permit (principal, action == Action::\"promote\", resource == Model::\"loans\")\n\
         when { context.metrics.auc.greaterThan(decimal(\"0.5\")) && context.slices has sex\n\
                && context.sensitive_columns.contains(\"sex\") && context.rows > 1000 };\n",
    );
    bench.completes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_nobody_gave_is_a_no() {
    let bench = Bench::new();
    bench.write(
        "policy.cedar",
        "permit (principal, action, resource) unless { action == Action::\"promote\" };\n\
         @require_approval(\"the committee meets on Mondays\")\n\
         permit (principal, action == Action::\"promote\", resource);\n",
    );
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "gate");
    let reason = rejected.reasons.join("; ");
    assert!(
        reason.contains("wants a person's approval to promote model:loans"),
        "{reason}"
    );
    assert!(reason.contains("on Mondays"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_columns_are_not_learnt_from() {
    let bench = Bench::new();
    bench.write(
        "policy.cedar",
        "permit (principal, action, resource) unless { action == Action::\"train\" };\n\
         @obligation_mask_columns(\"purpose, nothing\")\n\
         permit (principal, action == Action::\"train\", resource);\n",
    );
    let completed = bench.completes().await;
    let features: Vec<&str> = completed
        .version
        .task
        .features
        .iter()
        .map(|field| field.name.as_str())
        .collect();
    assert_eq!(features, ["age", "thousands"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_cannot_be_met_is_a_no() {
    for (action, obligation, stage) in [
        ("train", "@obligation_notify(\"the board\")", "permit"),
        ("read", "@obligation_mask_columns(\"id\")", "connect people"),
    ] {
        let bench = Bench::new();
        let policy = format!(
            "permit (principal, action, resource) unless {{ action == Action::\"{action}\" }};\n\
             {obligation} permit (principal, action == Action::\"{action}\", resource);\n"
        );
        bench.write("policy.cedar", &policy);
        let rejected = bench.is_rejected().await;
        assert_eq!(rejected.stage, stage);
        assert!(
            rejected.reasons[0].contains("allows it only with"),
            "{:?}",
            rejected.reasons
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_asked_about_before_they_are_loaded() {
    let bench = Bench::new();
    bench.change("at: [data-read,", "at: [plugin-load, data-read,");
    bench.write(
        "policy.cedar",
        "permit (principal, action, resource);\n\
         forbid (principal, action == Action::\"load\", resource) when { context.role == \"validator\" };\n",
    );
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "load");
    assert!(
        rejected.reasons[0].contains("plugin:sandcast/validator-rules"),
        "{:?}",
        rejected.reasons
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_may_be_kept_from_answering() {
    let bench = Bench::new();
    bench.change("promote], config", "promote, predict], config");
    bench.write(
        "policy.cedar",
        "permit (principal, action, resource) unless { action == Action::\"predict\" };\n\
         permit (principal, action == Action::\"predict\", resource) when { context.version > 1 };\n",
    );
    let first = bench.completes().await.version;
    let workspace = bench.workspace();
    let error = ServedModel::load(&workspace, &first)
        .await
        .err()
        .expect("version 1 may not answer");
    assert!(matches!(error, InferenceError::Denied { .. }), "{error}");
    bench.write_pipeline(|text| {
        text.replace("promote], config", "promote, predict], config")
            .replace("seed: 7", "seed: 9")
    });
    let second = bench.completes().await.version;
    assert_eq!(second.version, 2);
    ServedModel::load(&workspace, &second)
        .await
        .expect("version 2 may answer");
}
