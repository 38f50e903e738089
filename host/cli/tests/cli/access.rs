//! Who may do what, with the program itself and the real policies: an operator, another one, an
//! auditor, a service and somebody with nothing.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use jiff::Timestamp;
use sandcast_access::{Role, Settings, Store};
use sandcast_audit::AuditLog;
use serde_json::{Value, json};

use crate::program::repository;

/// The Cedar plugin, built and compiled once: the folder of what is compiled, for all states here.
static COMPILED: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("access-compiled");
    fs::create_dir_all(&folder).expect("a folder");
    let built = Command::new(env!("CARGO_BIN_EXE_sandcast"))
        .args(["build", "plugins/policy-cedar"])
        .current_dir(repository())
        .output()
        .expect("it starts");
    assert!(built.status.success(), "{built:?}");
    folder
});

struct Place {
    state: PathBuf,
    tokens: PathBuf,
}

impl Place {
    /// A state of this test that belongs to whoever is there.
    fn open_to_all(name: &str) -> Self {
        let compiled = LazyLock::force(&COMPILED);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("the state of an earlier test can be removed");
        }
        let place = Self {
            state: folder.join("state"),
            tokens: folder.join("tokens"),
        };
        fs::create_dir_all(&place.tokens).expect("a folder");
        fs::create_dir_all(&place.state).expect("a folder");
        symlink(compiled, place.state.join("cache")).expect("a link");
        place
    }

    /// A state of this test in which ann is the first operator.
    fn new(name: &str) -> Self {
        let place = Self::open_to_all(name);
        let set_up = place.by(
            "",
            &[
                "access",
                "init",
                "ann",
                "--cedar",
                "plugins/policy-cedar",
                "--to",
                &place.file("ann"),
            ],
        );
        assert!(set_up.status.success(), "{set_up:?}");
        place
    }

    fn file(&self, name: &str) -> String {
        self.tokens.join(name).display().to_string()
    }

    /// Gives a command as somebody whose token lies in the file of their name; nobody has none.
    fn by(&self, who: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandcast"));
        command
            .args(arguments)
            .arg("--state")
            .arg(&self.state)
            .env_remove("SANDCAST_TOKEN")
            .env_remove("SANDCAST_TOKEN_FILE")
            .env("NO_COLOR", "1")
            .env("USER", "root")
            .current_dir(repository());
        if !who.is_empty() {
            command.arg("--token-file").arg(self.file(who));
        }
        command.output().expect("it starts")
    }

    /// What a command says as JSON that must succeed.
    #[track_caller]
    fn said(&self, who: &str, arguments: &[&str]) -> Value {
        let output = self.by(who, &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// What a command that must be rejected says.
    #[track_caller]
    fn refused(&self, who: &str, arguments: &[&str]) -> String {
        let output = self.by(who, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    /// What a command asks a second person for.
    #[track_caller]
    fn asked(&self, who: &str, arguments: &[&str]) -> Value {
        let output = self.by(who, &[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    fn add(&self, name: &str, role: &str) {
        self.said(
            "ann",
            &["access", "principals", "add", name, "--role", role],
        );
        self.said(
            "ann",
            &["access", "tokens", "issue", name, "--to", &self.file(name)],
        );
    }

    /// The last decision in the log.
    fn last_decision(&self) -> Value {
        let log = fs::read_to_string(self.state.join("audit/log.jsonl")).expect("a log");
        log.lines()
            .rev()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .find(|entry| entry["event"]["event"] == "access-decided")
            .expect("a decision")["event"]
            .clone()
    }
}

/// The state beside a pipeline is the one that is looked into, whatever is above the folder that a
/// command is given in.
#[test]
fn a_pipeline_is_not_looked_at_beside_a_state_without_a_token() {
    let place = Place::new("access-program");
    place.add("eve", "auditor");
    let pipeline = place.tokens.join("pipeline");
    fs::create_dir_all(&pipeline).expect("a folder");
    symlink(&place.state, pipeline.join(".sandcast")).expect("a link");
    let example = repository().join("examples/credit-risk/pipeline.yaml");
    fs::copy(example, pipeline.join("pipeline.yaml")).expect("copies");
    let look = |who: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandcast"));
        command
            .args(["program", "show"])
            .arg(&pipeline)
            .env_remove("SANDCAST_TOKEN")
            .env_remove("SANDCAST_TOKEN_FILE")
            .env_remove("SANDCAST_STATE")
            .env("NO_COLOR", "1")
            .current_dir("/");
        if !who.is_empty() {
            command.arg("--token-file").arg(place.file(who));
        }
        let output = command.output().expect("it starts");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let refused = look("");
    assert!(refused.contains("there is no token"), "{refused}");
    assert_eq!(place.last_decision()["allowed"], false);
    // Who may look is told what is wrong with the pipeline: it was never run.
    let told = look("eve");
    assert!(!told.contains("there is no token"), "{told}");
    assert_eq!(place.last_decision()["allowed"], true);
}

#[test]
fn roles_may_do_what_the_shipped_policies_say() {
    let place = Place::new("access-roles");
    place.add("bob", "operator");
    place.add("eve", "auditor");
    place.add("bank-app", "service");
    place.add("acme", "vendor");

    let may = |who: &str, action: &str, resource: &str| {
        let output = place.by("ann", &["access", "can", who, action, resource]);
        match output.status.code() {
            Some(0) => true,
            Some(1) => false,
            _ => panic!("{output:?}"),
        }
    };
    for (who, action, resource, allowed) in [
        ("bob", "promote", "model:credit-risk", true),
        ("bob", "approve", "approval:x", true),
        ("eve", "audit-read", "state:here", true),
        ("eve", "export", "state:here", true),
        ("eve", "data-read", "state:here", false),
        ("bob", "state-clear", "plugin:acme/fetch", true),
        ("eve", "state-clear", "plugin:acme/fetch", false),
        ("acme", "state-clear", "plugin:acme/fetch", false),
        ("eve", "promote", "model:credit-risk", false),
        ("eve", "token-issue", "principal:eve", false),
        ("eve", "token-rotate", "principal:eve", true),
        ("eve", "token-rotate", "principal:ann", false),
        ("bank-app", "predict", "model:credit-risk", true),
        ("bank-app", "run", "pipeline:credit-risk", false),
        ("acme", "inspect", "plugin:acme/fetch", true),
        ("acme", "inspect", "state:here", false),
        ("acme", "predict", "model:credit-risk", false),
        // An action that does not go with such a resource.
        ("bob", "promote", "plugin:acme/fetch", false),
    ] {
        assert_eq!(
            may(who, action, resource),
            allowed,
            "{who} {action} {resource}"
        );
    }

    let nobody = place.refused("", &["audit", "show"]);
    assert!(
        nobody.contains("there is no token") && nobody.contains("SANDCAST_TOKEN"),
        "{nobody}"
    );
    let decision = place.last_decision();
    assert_eq!(
        (&decision["principal"], &decision["allowed"]),
        (&json!("unknown"), &json!(false))
    );
    let denied = place.refused("bank-app", &["audit", "show"]);
    assert!(
        denied.contains("`bank-app` may not audit-read state:here: no policy permits"),
        "{denied}"
    );
    assert!(place.by("eve", &["audit", "show"]).status.success());
    let decision = place.last_decision();
    assert_eq!(decision["policies"], json!(["auditors-read"]));
    assert_eq!(decision["principal"], "eve");
    let token = fs::read_to_string(place.file("eve")).expect("a token");
    let id = token.split('_').nth(1).expect("an id");
    assert_eq!(decision["token"], id);
    let log = fs::read_to_string(place.state.join("audit/log.jsonl")).expect("a log");
    assert!(!log.contains(token.trim()), "the token is nowhere");
    let who = place.said("eve", &["access", "whoami"]);
    assert_eq!(
        (&who["principal"], &who["roles"]),
        (&json!("eve"), &json!(["auditor"]))
    );
    assert!(place.by("eve", &["audit", "verify"]).status.success());
}

#[test]
fn tokens_end_and_give_way_and_principals_are_disabled() {
    let place = Place::new("access-tokens");
    place.add("bob", "operator");
    let id = |name: &str| {
        let token = fs::read_to_string(place.file(name)).expect("a token");
        token.split('_').nth(1).expect("an id").to_owned()
    };
    let old = id("bob");
    place.said(
        "bob",
        &[
            "access",
            "tokens",
            "rotate",
            &old,
            "--overlap-hours",
            "1",
            "--to",
            &place.file("bob2"),
        ],
    );
    for name in ["bob", "bob2"] {
        place.said(name, &["access", "whoami"]);
    }
    place.said("ann", &["access", "tokens", "revoke", &old]);
    let refused = place.refused("bob", &["access", "principals", "list"]);
    assert!(refused.contains("was revoked"), "{refused}");
    place.said("bob2", &["access", "principals", "list"]);
    let listed = place.said("ann", &["access", "tokens", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(3));
    assert!(!listed.to_string().contains("hash"), "{listed}");

    place.said("ann", &["access", "principals", "disable", "bob"]);
    let refused = place.refused("bob2", &["access", "principals", "list"]);
    assert!(refused.contains("`bob` is disabled"), "{refused}");
    let last = place.refused("ann", &["access", "principals", "disable", "ann"]);
    assert!(last.contains("the last operator"), "{last}");
    place.said("ann", &["access", "principals", "enable", "bob"]);
    place.said("bob2", &["access", "principals", "list"]);

    // Somebody who has a token makes another, for no longer.
    place.add("eve", "auditor");
    let longer = place.refused(
        "eve",
        &["access", "tokens", "rotate", &id("eve"), "--days", "366"],
    );
    assert!(
        longer.contains("made for 90 days, and only an operator"),
        "{longer}"
    );
    place.said("eve", &["access", "tokens", "rotate", &id("eve")]);

    // Whoever is not known is told nothing of what is there.
    let nobody = [
        vec!["access", "tokens", "revoke", "00000000000000aa"],
        vec!["access", "tokens", "rotate", "00000000000000aa"],
        vec!["plugins", "revoke", "no-such-plugin", "--reason", "a test"],
    ];
    for command in nobody {
        let refused = place.refused("", &command);
        assert!(
            refused.contains("SANDCAST_TOKEN") && !refused.contains("no-such-plugin"),
            "{refused}"
        );
    }
    // Who asks for a token that is not there is on record, and who may not ask is not told.
    for (who, is_told) in [("ann", true), ("eve", false)] {
        let unknown = place.refused(who, &["access", "tokens", "revoke", "00000000000000aa"]);
        assert_eq!(
            unknown.contains("there is no token `0"),
            is_told,
            "{unknown}"
        );
        let decision = place.last_decision();
        assert_eq!(
            (
                &decision["principal"],
                &decision["resource"],
                &decision["allowed"]
            ),
            (
                &json!(who),
                &json!("principal:holder of 00000000000000aa"),
                &json!(is_told)
            )
        );
    }

    let mistyped = place.file("mistyped");
    fs::write(&mistyped, "sct_0000").expect("written");
    let refused = place.refused("mistyped", &["runs"]);
    assert!(refused.contains("no token, or it is mistyped"), "{refused}");
    let again = place.refused(
        "ann",
        &["access", "init", "eve", "--cedar", "plugins/policy-cedar"],
    );
    assert!(again.contains("set up in"), "{again}");

    // Another key seals all of that, and whoever had a token has it still.
    place.add("olga", "auditor");
    let refused = place.refused("olga", &["access", "key", "rotate"]);
    assert!(refused.contains("may not key-rotate"), "{refused}");
    let key = || fs::read(place.state.join("access.key")).expect("a key");
    let before = key();
    assert_eq!(
        place.said("ann", &["access", "key", "rotate"])["rotated"],
        true
    );
    assert_ne!(key(), before);
    place.said("olga", &["audit", "verify"]);
    place.said("ann", &["access", "principals", "list"]);
}

#[test]
fn access_is_not_set_up_where_nobody_gets_the_first_token() {
    let place = Place::open_to_all("access-lost");
    let init = |to: &str| {
        [
            "access",
            "init",
            "ann",
            "--cedar",
            "plugins/policy-cedar",
            "--to",
            to,
        ]
        .map(str::to_owned)
    };
    let nowhere = init(&place.file("no-such-folder/ann"));
    let refused = place.refused("", &nowhere.each_ref().map(String::as_str));
    assert!(
        refused.contains("a token cannot be written to"),
        "{refused}"
    );
    let here = init(&place.file("ann"));
    place.said("", &here.each_ref().map(String::as_str));
    place.said("ann", &["access", "whoami"]);
}

/// As where a process dies, or its reader goes away, in the middle of `access init`.
#[test]
fn a_state_where_access_was_begun_and_not_set_up_guards_nothing() {
    let place = Place::open_to_all("access-begun");
    let audit = AuditLog::open(&place.state.join("audit")).expect("a log");
    let settings = Settings {
        initialised: Timestamp::now(),
        engine: sandcast_audit::Digest::of(b"none"),
        four_eyes: Default::default(),
    };
    let ann = "ann".parse().expect("a name");
    Store::initialise(
        &place.state,
        &audit,
        (&ann, 1),
        &settings,
        "local:ann",
        |_| Err(std::io::Error::other("nobody is there")),
    )
    .err()
    .expect("nobody has the token");
    assert!(Store::is_there(&place.state));
    let refused = place.refused("", &["serve", "--address", "0.0.0.0:0"]);
    assert!(
        refused.contains("neither TLS nor anybody who asks for a token"),
        "{refused}"
    );
}

#[test]
fn nobody_who_is_not_known_is_told_what_plugins_keep() {
    let place = Place::new("access-kept");
    let asked = || {
        let log = fs::read_to_string(place.state.join("audit/log.jsonl")).expect("a log");
        log.matches("\"action\":\"state-clear\"").count()
    };
    let clear = ["state", "clear", "acme/rates", "--reason", "a test"];
    let refused = place.refused("", &clear);
    assert!(refused.contains("there is no token"), "{refused}");
    assert!(!refused.contains("acme/rates"), "{refused}");
    assert_eq!(asked(), 1, "and it is on record");
    let refused = place.refused("ann", &clear);
    assert!(refused.contains("no plugin `acme/rates`"), "{refused}");
}

#[test]
fn what_waits_for_the_log_is_not_lost_to_somebody_who_wants_another_key() {
    let place = Place::new("access-key");
    // A change whose entry the log did not take, as when a process dies in between.
    let broken = place.tokens.join("broken");
    let audit = AuditLog::open(&broken).expect("a log");
    fs::write(broken.join("log.jsonl"), "").expect("written");
    let store = Store::look(&place.state).expect("readable");
    let bob = "bob".parse().expect("a name");
    store
        .expect("it is set up")
        .add_principal(&audit, &bob, [Role::Vendor].into(), Timestamp::now(), "ann")
        .expect_err("the log is broken");
    let told = || {
        let log = fs::read_to_string(place.state.join("audit/log.jsonl")).expect("a log");
        log.matches("\"subject\":\"principal:bob\"").count()
    };
    let refused = place.refused("", &["audit", "key", "rotate"]);
    assert!(refused.contains("there is no token"), "{refused}");
    assert_eq!(told(), 0);
    place.said("ann", &["audit", "key", "rotate"]);
    place.said("ann", &["access", "principals", "list"]);
    assert_eq!(told(), 1);
}

#[test]
fn an_operators_own_policies_hold_from_the_next_command_on() {
    let place = Place::new("access-policies");
    place.add("eve", "auditor");
    let file = place.state.join("access/policies.cedar");
    let shown = place.by("ann", &["access", "policies", "show"]);
    let shipped = String::from_utf8(shown.stdout).expect("text");
    let own = format!(
        "{shipped}\n@id(\"no-promotion-of-loans\")\nforbid (principal, action == Action::\"promote\", \
         resource == Model::\"loans\");\n"
    );
    let draft = place.tokens.join("draft.cedar");
    let draft_name = draft.display().to_string();
    fs::write(&draft, &own).expect("written");
    place.said("", &["access", "policies", "check", &draft_name]);
    fs::write(&file, &own).expect("written");
    let verdict = place.by(
        "ann",
        &["access", "can", "ann", "promote", "model:loans", "--json"],
    );
    let verdict: Value = serde_json::from_slice(&verdict.stdout).expect("JSON");
    assert_eq!(verdict["allowed"], false);
    assert_eq!(verdict["policies"], json!(["no-promotion-of-loans"]));
    place.said("ann", &["access", "can", "ann", "promote", "model:other"]);

    // A word that is in no schema, and one that is none: everything is refused, and it is said why.
    for (text, words) in [
        (
            "permit (principal in Role::\"operator\", action == Action::\"fly\", resource);",
            "fly",
        ),
        ("permit (principal, action resource);", "line 1"),
    ] {
        fs::write(&draft, text).expect("written");
        let checked = place.refused("", &["access", "policies", "check", &draft_name]);
        assert!(checked.contains(words), "{checked}");
        fs::write(&file, text).expect("written");
        let refused = place.refused("ann", &["access", "principals", "list"]);
        assert!(
            refused.contains("the policies are refused, so nothing is allowed")
                && refused.contains(words)
                && refused.contains("policies.cedar"),
            "{refused}"
        );
    }
    fs::remove_file(&file).expect("removed");
    place.said("ann", &["access", "principals", "list"]);

    // Another component in place of the one that access was set up with decides nothing.
    let engine = place.state.join("access/policy-cedar.wasm");
    let mut bytes = fs::read(&engine).expect("a component");
    bytes.push(0);
    fs::write(&engine, bytes).expect("written");
    let refused = place.refused("ann", &["access", "principals", "list"]);
    assert!(
        refused.contains("is not the component that access was set up with"),
        "{refused}"
    );
}

/// The state is gone when the auditor looks: what the policies said, which they were, and that they say
/// it again.
#[test]
fn a_decision_of_access_is_shown_again_from_an_export() {
    let place = Place::new("shown-again");
    place.add("eve", "auditor");
    let own = "@id(\"nobody-else\") permit (principal, action, resource) when { principal in Role::\"operator\" };\n\
               @id(\"auditors-look\") permit (principal in Role::\"auditor\", action == Action::\"audit-read\", resource);\n";
    fs::write(place.state.join("access/policies.cedar"), own).expect("written");
    place.said("eve", &["audit", "verify"]);
    let allowed = place.last_decision();
    place.refused(
        "eve",
        &[
            "access",
            "principals",
            "add",
            "mallory",
            "--role",
            "operator",
        ],
    );
    let denied = place.last_decision();
    for decision in [&allowed, &denied] {
        assert!(decision["recording"].is_string(), "{decision}");
    }
    let evidence = place.state.with_file_name("evidence");
    let to = evidence.to_str().expect("a path in UTF-8");
    place.said("ann", &["audit", "export", "--recordings", to]);
    let key = place.by("ann", &["audit", "key", "show"]);
    let key = String::from_utf8(key.stdout).expect("a key");
    let key = key.trim();
    fs::remove_dir_all(&place.state).expect("it can be removed");

    let from = ["--from", to, "--key", key];
    let asked = |what: &[&str]| place.said("", &[what, &from].concat());
    let whole = place.said("", &["audit", "verify", to, "--key", key]);
    assert_eq!(whole["texts_missing"], 0, "{whole}");
    let policies = denied["policy_set"].as_str().expect("a digest");
    let shown = asked(&["audit", "text", policies]);
    assert_eq!(
        (&shown["kind"], &shown["text"]),
        (&json!("policies"), &json!(own))
    );
    let log = fs::read_to_string(evidence.join("log.jsonl")).expect("the log");
    let entry_of = |decision: &Value| {
        let entries = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let mut found = entries.filter(|entry| entry["event"] == *decision);
        found.next().expect("it is there")["sequence"].to_string()
    };
    for (decision, effect) in [(&allowed, "allow"), (&denied, "deny")] {
        let again = asked(&["replay", &entry_of(decision)]);
        assert_eq!(again[0]["same"], true, "{again}");
        assert_eq!(again[0]["plugin"]["id"], "sandcast/policy-cedar", "{again}");
        let said = again[0]["decision"].to_string();
        assert!(said.contains(effect), "{said}");
    }
}

#[test]
fn a_second_person_approves_what_takes_two() {
    let place = Place::new("access-approvals");
    place.add("bob", "operator");
    place.add("eve", "auditor");
    let pipeline = "examples/credit-risk";

    // Grants.
    let refused = place.refused("ann", &["run", "--build", pipeline]);
    assert!(
        refused.contains("this pipeline grants more than was approved")
            && refused.contains("sandcast approvals widen examples/credit-risk"),
        "{refused}"
    );
    let planned = place.refused("ann", &["plan", pipeline]);
    assert!(
        planned.contains("is granted more than was approved, so a run is refused")
            && planned.contains("sandcast approvals widen examples/credit-risk"),
        "{planned}"
    );
    let asked = place.asked("ann", &["approvals", "widen", pipeline]);
    let id = asked["id"].as_str().expect("an id").to_owned();
    assert_eq!(asked["subject"]["kind"], "widen");
    let own = place.refused("ann", &["approvals", "approve", &id, "--reason", "mine"]);
    assert!(own.contains("it takes another principal"), "{own}");
    let silent = place.refused("bob", &["approvals", "approve", &id, "--reason", " "]);
    assert!(silent.contains("needs a reason"), "{silent}");
    let denied = place.refused("eve", &["approvals", "approve", &id, "--reason", "mine"]);
    assert!(denied.contains("`eve` may not approve"), "{denied}");
    let done = place.said(
        "bob",
        &["approvals", "approve", &id, "--reason", "ticket 7"],
    );
    assert_eq!(done["status"], "carried-out");
    let planned = place.said("ann", &["plan", pipeline]);
    assert!(planned.get("not_approved").is_none(), "{planned}");

    // A run that its gate approved: the version is registered, and the alias waits.
    let runs = || {
        let run = place.said("ann", &["run", pipeline]);
        assert_eq!(run["outcome"], "completed");
        assert_eq!(
            (&run["alias"], &run["alias_moved"]),
            (&json!(null), &json!(false))
        );
        let models = place.said("ann", &["models"]);
        assert_eq!(models[0]["aliases"], json!({}), "nothing moved yet");
        run["approval"].as_str().expect("an id").to_owned()
    };
    let id = runs();
    let shown = place.said("eve", &["approvals", "show", &id]);
    assert_eq!(shown["subject"]["kind"], "promote");
    assert_eq!(shown["requester"], "ann");
    assert_eq!(runs(), id, "the same request goes on waiting");
    let own = place.refused("ann", &["approvals", "approve", &id, "--reason", "mine"]);
    assert!(own.contains("it takes another principal"), "{own}");
    place.said("bob", &["approvals", "reject", &id, "--reason", "not yet"]);
    let again = runs();
    assert_ne!(again, id, "a no is a no to that request");
    let done = place.said(
        "bob",
        &["approvals", "approve", &again, "--reason", "ticket 8"],
    );
    assert_eq!(done["status"], "carried-out");
    let run = place.said("ann", &["run", pipeline]);
    assert_eq!(
        (&run["alias"], run.get("approval")),
        (&json!("champion"), None)
    );

    // An alias.
    let alias = ["models", "alias", "credit-risk", "stable", "1"];
    let asked = place.asked("ann", &alias);
    let id = asked["id"].as_str().expect("an id").to_owned();
    assert_eq!(asked["subject"]["to"], 1);
    let models = place.said("ann", &["models"]);
    assert_eq!(
        models[0]["aliases"],
        json!({ "champion": 1 }),
        "nothing moved yet"
    );
    let waiting = place.said("eve", &["approvals"]);
    assert_eq!(waiting.as_array().map(Vec::len), Some(1));
    place.said(
        "bob",
        &["approvals", "approve", &id, "--reason", "ticket 9"],
    );
    let models = place.said("ann", &["models"]);
    assert_eq!(models[0]["aliases"], json!({ "champion": 1, "stable": 1 }));
    // It means that already, so nothing is moved and nobody is asked.
    let same = place.said("ann", &alias);
    assert_eq!((&same["from"], &same["to"]), (&json!(1), &json!(1)));
    let twice = place.refused("bob", &["approvals", "approve", &id, "--reason", "twice"]);
    assert!(
        twice.contains("is carried-out, so there is nothing to decide"),
        "{twice}"
    );

    // A plugin.
    let reason = ["--reason", "a test"];
    let csv = "sandcast/connector-csv";
    place.said(
        "ann",
        &[&["plugins", "quarantine", csv], &reason[..]].concat(),
    );
    let asked = place.asked("bob", &[&["plugins", "release", csv], &reason[..]].concat());
    let id = asked["id"].as_str().expect("an id").to_owned();
    let refused = place.refused("bob", &["approvals", "approve", &id, "--reason", "mine"]);
    assert!(refused.contains("it takes another principal"), "{refused}");
    place.said(
        "ann",
        &["approvals", "approve", &id, "--reason", "looked at it"],
    );
    let shown = place.said("ann", &["plugins", "show", csv]);
    assert_eq!(shown["standing"]["standing"], "probation");
    assert_eq!(shown["standing"]["operator"], "bob, approved by ann");
    let left = place.said("ann", &["approvals", "resume"]);
    assert_eq!(left, json!([]));

    // An auditor, elsewhere, with an export and a key.
    let export = place.tokens.join("export").display().to_string();
    let exported = place.said("eve", &["audit", "export", &export]);
    let key = exported["key"].as_str().expect("a key");
    let who = |what: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_sandcast"))
            .args(["audit", "who", "--from", &export, "--key", key, what])
            .current_dir("/")
            .env("NO_COLOR", "1")
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let model = who("credit-risk@1");
    for words in [
        "ann",
        "promote model:credit-risk allowed (by operators-manage)",
        "promote that ann asked for approved by bob",
        "credit-risk@stable: version 1, by approval",
    ] {
        assert!(model.contains(words), "{words}: {model}");
    }
    let plugin = who(csv);
    for words in [
        "release that bob asked for approved by ann: looked at it",
        "quarantined -> probation, by bob, approved by ann, by approval",
        "widen that ann asked for approved by bob: ticket 7",
    ] {
        assert!(plugin.contains(words), "{words}: {plugin}");
    }
}
