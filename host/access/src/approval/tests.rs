use jiff::ToSpan as _;
use serde_json::json;

use super::*;
use crate::testing::Place;

fn promotion() -> Subject {
    Subject::Promote {
        model: "credit-risk".to_owned(),
        alias: "champion".to_owned(),
        from: Some(1),
        to: 2,
        model_digest: Digest::of(b"model"),
        lineage: Digest::of(b"lineage"),
    }
}

fn widening(after: Value) -> Subject {
    let widened = Widened {
        component: Digest::of(b"component"),
        before: None,
        after,
        wider: vec!["clock".to_owned()],
    };
    Subject::Widen {
        pipeline: "loans".to_owned(),
        plugins: [("acme/crm".to_owned(), widened)].into(),
    }
}

fn kinds(place: &Place) -> Vec<&'static str> {
    place
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::ApprovalRequested { .. } => Some("requested"),
            Event::ApprovalDecided { approved: true, .. } => Some("approved"),
            Event::ApprovalDecided { .. } => Some("rejected"),
            Event::ApprovalCarriedOut { .. } => Some("carried-out"),
            _ => None,
        })
        .collect()
}

fn effect(times: &mut u32) -> impl FnMut(&Approval) -> Result<Result<(), String>, AccessError> {
    |_| {
        *times += 1;
        Ok(Ok(()))
    }
}

#[test]
fn another_person_approves_and_it_is_done_once() {
    let place = Place::new();
    let now = Timestamp::now();
    let (store, audit) = (&place.store, &place.audit);
    let asked = store
        .request(audit, promotion(), "ann", now)
        .expect("asked");
    let same = store
        .request(audit, promotion(), "ann", now)
        .expect("asked");
    assert_eq!(asked, same, "one request is enough");
    let mut times = 0;
    let early = store.carry_out(audit, &asked.id, effect(&mut times));
    assert!(matches!(early, Err(AccessError::NotPending { .. })));
    let own = store.decide(audit, &asked.id, true, "ann", "", now);
    assert!(matches!(own, Err(AccessError::SelfApproval(_))));
    store
        .decide(audit, &asked.id, true, "bob", "looked at it", now)
        .expect("approved");
    let again = store.decide(audit, &asked.id, false, "carl", "", now);
    assert!(matches!(again, Err(AccessError::NotPending { .. })));
    let done = store
        .carry_out(audit, &asked.id, effect(&mut times))
        .expect("done");
    assert_eq!(done.status, ApprovalStatus::CarriedOut);
    let twice = store.carry_out(audit, &asked.id, effect(&mut times));
    assert!(matches!(twice, Err(AccessError::NotPending { .. })));
    assert_eq!(times, 1);
    assert_eq!(kinds(&place), ["requested", "approved", "carried-out"]);
}

#[test]
fn an_effect_that_fails_leaves_the_approval_to_be_carried_out() {
    let place = Place::new();
    let now = Timestamp::now();
    let (store, audit) = (&place.store, &place.audit);
    let asked = store
        .request(audit, promotion(), "ann", now)
        .expect("asked");
    store
        .decide(audit, &asked.id, true, "bob", "", now)
        .expect("approved");
    let failed = store.carry_out(audit, &asked.id, |_| {
        Err::<Result<(), String>, _>(AccessError::Newer)
    });
    assert!(matches!(failed, Err(AccessError::Newer)));
    // Another process, after a crash: it is still approved.
    let reopened = Store::open(place.path(), audit)
        .expect("it opens")
        .expect("set up");
    let found = reopened.approval(&asked.id, now).expect("it is there");
    assert_eq!(found.status, ApprovalStatus::Approved);
    let void = reopened
        .carry_out(audit, &asked.id, |_| {
            Ok::<_, AccessError>(Err("the alias moved".to_owned()))
        })
        .expect("void");
    assert_eq!(void.status, ApprovalStatus::Void);
    assert_eq!(kinds(&place), ["requested", "approved", "carried-out"]);
}

#[test]
fn a_request_that_nobody_answers_expires() {
    let place = Place::new();
    let now = Timestamp::now();
    let (store, audit) = (&place.store, &place.audit);
    let asked = store
        .request(audit, promotion(), "ann", now)
        .expect("asked");
    let late = now + 169.hours();
    let found = store.approval(&asked.id, late).expect("it is there");
    assert_eq!(found.status, ApprovalStatus::Expired);
    let decided = store.decide(audit, &asked.id, true, "bob", "", late);
    assert!(matches!(decided, Err(AccessError::NotPending { status, .. }) if status == "expired"));
    let again = store
        .request(audit, promotion(), "ann", late)
        .expect("asked");
    assert_ne!(again.id, asked.id);
    assert!(matches!(
        store.approval("nonsense", now),
        Err(AccessError::NoApproval(_))
    ));
}

#[test]
fn wider_grants_take_effect_with_the_approval_and_not_with_a_rejection() {
    let place = Place::new();
    let now = Timestamp::now();
    let (store, audit) = (&place.store, &place.audit);
    let grants = || {
        store
            .approved_grants("loans", "acme/crm")
            .expect("readable")
    };
    let ask = |after: Value| {
        store
            .request(audit, widening(after), "ann", now)
            .expect("asked")
    };
    let first = ask(json!({ "clock": true }));
    store
        .decide(audit, &first.id, false, "bob", "no", now)
        .expect("rejected");
    assert_eq!(grants(), None);
    let second = ask(json!({ "clock": true, "random": {} }));
    let done = store
        .decide(audit, &second.id, true, "bob", "yes", now)
        .expect("approved");
    assert_eq!(done.status, ApprovalStatus::CarriedOut);
    assert_eq!(grants(), Some(json!({ "clock": true, "random": {} })));
    let nobody = store.approved_grants("loans", "acme/other");
    assert_eq!(nobody.expect("readable"), None);
    assert_eq!(
        kinds(&place),
        [
            "requested",
            "rejected",
            "requested",
            "approved",
            "carried-out"
        ]
    );
    place.by_hand("UPDATE grants SET document = replace(document, 'clock', 'clocc')");
    let tampered = store.approved_grants("loans", "acme/crm");
    assert!(matches!(tampered, Err(AccessError::Tampered { .. })));
}

#[test]
fn wider_grants_are_void_where_others_were_approved_meanwhile() {
    let place = Place::new();
    let now = Timestamp::now();
    let (store, audit) = (&place.store, &place.audit);
    let ask = |after: Value| {
        let asked = store.request(audit, widening(after), "ann", now);
        asked.expect("asked").id
    };
    let approve = |id: &str| {
        let decided = store.decide(audit, id, true, "bob", "yes", now);
        decided.expect("decided")
    };
    let old = ask(json!({ "clock": true, "http": { "hosts": ["old.example"] } }));
    let new = ask(json!({ "clock": true }));
    assert_eq!(approve(&new).status, ApprovalStatus::CarriedOut);
    // The set that was replaced does not come back with a request from before.
    let void = approve(&old);
    assert_eq!(void.status, ApprovalStatus::Void);
    let why = void.reason.expect("why");
    assert!(why.contains("acme/crm was changed"), "{why}");
    let approved = store.approved_grants("loans", "acme/crm");
    assert_eq!(approved.expect("readable"), Some(json!({ "clock": true })));
    let outcomes: Vec<String> = place
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::ApprovalCarriedOut { outcome, .. } => Some(outcome),
            _ => None,
        })
        .collect();
    assert!(matches!(outcomes.as_slice(), [done, void]
        if done == "done" && void.starts_with("void: ")));
}
