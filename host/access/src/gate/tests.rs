use jiff::ToSpan as _;

use super::*;
use crate::testing::{Place, id, now_or_never};

fn demand(gate: &Gate, token: Option<&str>, action: Action) -> Result<Permit, GateError> {
    let resource = Resource::model("credit-risk");
    now_or_never(gate.demand(token, action, &resource, BTreeMap::new()))
}

fn refusal(result: Result<Permit, GateError>) -> Refusal {
    match result {
        Err(GateError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn last(place: &Place) -> (String, Option<String>, bool, Vec<String>) {
    match place.events().pop() {
        Some(Event::AccessDecided {
            principal,
            token,
            allowed,
            policies,
            ..
        }) => (principal, token, allowed, policies),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_allowed_call_is_on_record_with_who_and_by_which_policy() {
    let place = Place::new();
    let token = place.ann.token.reveal();
    let permit = demand(&place.gate(), Some(&token), Action::Promote).expect("an operator may");
    assert_eq!(permit.principal, "ann");
    let id = place.ann.record.id.to_string();
    assert_eq!(
        last(&place),
        ("ann".to_owned(), Some(id), true, vec!["by-role".to_owned()])
    );
    let tokens = place.store.tokens().expect("tokens");
    assert!(tokens[0].last_used.is_some());
}

#[test]
fn a_call_that_no_policy_permits_is_refused_and_on_record() {
    let place = Place::new();
    let token = place.add("bank-app", Role::Service).token.reveal();
    let refused = refusal(demand(&place.gate(), Some(&token), Action::Promote));
    assert!(
        refused
            .to_string()
            .starts_with("`bank-app` may not promote model:credit-risk"),
        "{refused}"
    );
    assert!(!refused.is_unauthenticated());
    let (principal, _, allowed, _) = last(&place);
    assert_eq!((principal.as_str(), allowed), ("bank-app", false));
    demand(&place.gate(), Some(&token), Action::Predict).expect("it may ask");
}

#[test]
fn whoever_has_no_good_token_is_nobody() {
    let place = Place::new();
    let gate = place.gate();
    let good = place.ann.token.reveal();
    let other = Place::new().ann.token.reveal();
    // The id of one with the secret of another, whose checksum nobody would have.
    let kinds = [
        (None, "no-token"),
        (Some(""), "no-token"),
        (Some("hello"), "malformed"),
        (Some(&good[..good.len() - 1]), "malformed"),
        (Some(other.as_str()), "unknown"),
    ];
    for (token, kind) in kinds {
        let refused = refusal(demand(&gate, token, Action::Inspect));
        assert_eq!(refused.kind(), kind);
        assert!(refused.is_unauthenticated());
        let (principal, recorded, allowed, _) = last(&place);
        assert_eq!(
            (principal.as_str(), recorded, allowed),
            ("unknown", None, false)
        );
    }
    demand(&gate, Some(&format!(" {good}\n")), Action::Inspect).expect("spaces are nothing");
}

#[test]
fn expired_revoked_and_disabled_are_refused_by_name() {
    let place = Place::new();
    let gate = place.gate();
    let bob = place.add("bob", Role::Operator);
    let text = bob.token.reveal();
    let late = bob.record.expires;
    let early = late - 1.second();
    assert!(gate.authenticate(Some(&text), early).is_ok());
    let expired = gate.authenticate(Some(&text), late);
    assert!(
        matches!(&expired, Err(GateError::Refused(Refusal::Expired { principal, .. })) if *principal == id("bob")),
        "{expired:?}"
    );
    let now = Timestamp::now();
    let disable = |disabled| {
        place
            .store
            .set_disabled(&place.audit, &id("bob"), disabled, now, "ann")
            .expect("changed")
    };
    disable(true);
    let refused = refusal(demand(&gate, Some(&text), Action::Inspect));
    assert_eq!(refused, Refusal::Disabled(id("bob")));
    disable(false);
    demand(&gate, Some(&text), Action::Inspect).expect("enabled again");
    place
        .store
        .revoke_token(&place.audit, &bob.record.id, now, "ann")
        .expect("revoked");
    let refused = refusal(demand(&gate, Some(&text), Action::Inspect));
    assert_eq!(refused.kind(), "revoked");
    let (principal, token, allowed, _) = last(&place);
    assert_eq!(
        (principal.as_str(), token, allowed),
        ("bob", Some(bob.record.id.to_string()), false)
    );
}

#[test]
fn policies_that_are_no_good_refuse_everything_and_say_so() {
    let place = Place::new();
    place.write_policies("");
    let token = place.ann.token.reveal();
    let refused = demand(&place.gate(), Some(&token), Action::Inspect);
    let error = refused.expect_err("no").to_string();
    assert!(
        error.contains("nothing is allowed: there are none"),
        "{error}"
    );
    assert!(!last(&place).2);
}

#[test]
fn a_row_that_was_changed_by_hand_refuses_the_call() {
    let place = Place::new();
    let eve = place.add("eve", Role::Auditor).token.reveal();
    place.by_hand("UPDATE principals SET document = replace(document, 'auditor', 'operator')");
    let refused = demand(&place.gate(), Some(&eve), Action::Promote);
    assert!(
        matches!(
            refused,
            Err(GateError::Access(AccessError::Tampered { .. }))
        ),
        "{refused:?}"
    );
}

#[test]
fn the_person_at_the_machine_acts_where_access_is_not_set_up() {
    let audit = AuditLog::in_memory();
    let gate = Gate::open_to_all(audit.clone());
    let permit = demand(&gate, None, Action::Promote).expect("as before");
    assert!(permit.principal.starts_with("local:"));
    demand(&gate, None, Action::Inspect).expect("as before");
    let entries = audit.entries().expect("entries");
    assert_eq!(entries.len(), 1, "looking is not on record");
    now_or_never(gate.allows(None, Action::Predict, &Resource::model("m"))).expect("as before");
}
