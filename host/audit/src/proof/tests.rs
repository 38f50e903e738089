use proptest::prelude::*;

use super::*;
use crate::testing::{Folder, event, folder, key, small_event};
use crate::{AuditLog, Period, export};

/// A log with checkpoints at 1, 4, 7 and so on, and the key of it.
fn log_of(entries: u64) -> (Folder, AuditLog) {
    let dir = folder();
    let log = dir.open();
    for number in 2..=entries {
        let is_signed = number % 3 == 1;
        let event = if is_signed {
            event(number)
        } else {
            small_event(number)
        };
        log.append(event).expect("appends");
    }
    log.checkpoint().expect("signs");
    (dir, log)
}

fn round_trip(proof: &Proof) -> Proof {
    let json = serde_json::to_string(proof).expect("JSON");
    serde_json::from_str(&json).expect("and back")
}

#[test]
fn every_entry_of_a_log_is_proven_to_be_in_it() {
    let (dir, log) = log_of(11);
    let keys = [key(&log)];
    for entry in log.entries().expect("reads") {
        let proof = prove_inclusion(dir.path(), entry.sequence).expect("proves");
        let Ok(Proven::Inclusion {
            sequence,
            entry: line,
            size,
            key,
            origin,
        }) = verify_proof(&round_trip(&proof), &keys)
        else {
            panic!("{proof:?}");
        };
        assert_eq!((sequence, size), (entry.sequence, 11));
        assert_eq!((&key, origin.as_str()), (&keys[0], keys[0].name()));
        assert_eq!(
            serde_json::from_str::<crate::Entry>(&line).expect("an entry"),
            entry
        );
    }
    for sequence in [0, 12] {
        assert!(matches!(
            prove_inclusion(dir.path(), sequence),
            Err(ProveError::NotCovered { signed: 11, .. })
        ));
    }
}

#[test]
fn every_two_checkpoints_are_proven_to_be_one_history() {
    let (dir, log) = log_of(11);
    let keys = [key(&log)];
    for old in [1, 4, 7, 10, 11] {
        for new in [4, 10, 11].into_iter().filter(|new| *new >= old) {
            let proof = prove_consistency(dir.path(), old, Some(new)).expect("proves");
            let proven = verify_proof(&round_trip(&proof), &keys).expect("holds");
            assert!(
                matches!(proven, Proven::Consistency { old_size, size, .. } if (old_size, size) == (old, new))
            );
        }
    }
    assert!(matches!(
        prove_consistency(dir.path(), 5, None),
        Err(ProveError::NoCheckpoint {
            size: 5,
            nearest: 4
        })
    ));
}

#[test]
fn two_checkpoints_of_a_fork_have_no_proof() {
    let (dir, log) = log_of(4);
    // The operator has the key and a copy of the folder, and tells two stories.
    let copy = folder();
    fs::create_dir_all(copy.path()).expect("a folder");
    for name in ["log.jsonl", "head.json", "checkpoints"] {
        fs::write(copy.path().join(name), dir.file(name)).expect("copies");
    }
    fs::copy(
        dir.state().join("audit.key"),
        copy.state().join("audit.key"),
    )
    .expect("copies");
    let other = copy.open();
    log.append(event(100)).expect("appends");
    other.append(event(200)).expect("appends");
    other.append(event(201)).expect("appends");

    let keys = [key(&log)];
    let of_one = prove_consistency(dir.path(), 4, Some(5)).expect("proves");
    let of_other = prove_consistency(copy.path(), 5, Some(6)).expect("proves");
    let (
        Proof::Consistency { checkpoint, .. },
        Proof::Consistency {
            hashes,
            checkpoint: other,
            rotations,
            ..
        },
    ) = (of_one, of_other)
    else {
        panic!("both are of consistency");
    };
    let forged = Proof::Consistency {
        old_size: 5,
        size: 6,
        hashes,
        old_checkpoint: checkpoint,
        checkpoint: other,
        rotations,
    };
    assert_eq!(
        verify_proof(&forged, &keys),
        Err(ProofError::Root { size: 5 })
    );
}

#[test]
fn a_proof_follows_the_keys_from_the_first_one() {
    let (dir, log) = log_of(5);
    let first = key(&log);
    log.rotate_key().expect("rotates");
    log.append(small_event(1)).expect("appends");
    let last = log.rotate_key().expect("rotates");
    let proof = prove_inclusion(dir.path(), 3).expect("proves");
    for trusted in [&first, &last] {
        verify_proof(&proof, std::slice::from_ref(trusted)).expect("holds");
    }
    let stranger = log_of(1).1;
    let error = verify_proof(&proof, &[key(&stranger)]).expect_err("is another key");
    assert!(matches!(
        error,
        ProofError::Checkpoint {
            fault: NoteFault::OtherKey { .. }
        }
    ));
    assert!(verify_proof(&proof, &[]).is_err());
}

#[test]
fn an_export_of_some_entries_proves_those_and_says_which_it_lacks() {
    let (dir, log) = log_of(8);
    log.rotate_key().expect("rotates");
    let entries = log.entries().expect("reads");
    let period = Period {
        since: Some(entries[3].time.parse().expect("a time")),
        until: Some(entries[5].time.parse().expect("a time")),
    };
    let to = dir.state().join("export");
    export(&log, &to, period).expect("exports");
    let whole = prove_inclusion(dir.path(), 4).expect("proves");
    assert_eq!(prove_inclusion(&to, 4).expect("proves"), whole);
    assert!(matches!(
        prove_inclusion(&to, 2),
        Err(ProveError::NotPresent { sequence: 2 })
    ));
    assert_eq!(
        prove_consistency(&to, 4, None).expect("proves"),
        prove_consistency(dir.path(), 4, None).expect("proves")
    );
}

#[test]
fn a_log_without_checkpoints_proves_nothing() {
    let (dir, _log) = log_of(2);
    fs::remove_file(dir.path().join(CHECKPOINTS_FILE)).expect("removes");
    let error = prove_inclusion(dir.path(), 1).expect_err("is not signed");
    assert!(
        error.to_string().contains("sandcast audit checkpoint"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changed_bit_of_a_proof_is_found(entries in 2..12u64, index in any::<prop::sample::Index>(), is_inclusion in any::<bool>()) {
        let (dir, log) = log_of(entries);
        let keys = [key(&log)];
        let proof = if is_inclusion {
            prove_inclusion(dir.path(), 1 + index.index(usize::try_from(entries).expect("small")) as u64)
        } else {
            prove_consistency(dir.path(), 1, None)
        }.expect("proves");
        let json = serde_json::to_vec(&proof).expect("JSON");
        for place in 0..json.len() {
            let mut changed = json.clone();
            changed[place] ^= 1 << (place % 7);
            // A change of spelling that leaves the value is no change.
            if let Ok(found) = serde_json::from_slice::<Proof>(&changed) && found != proof {
                prop_assert!(verify_proof(&found, &keys).is_err(), "byte {}: {:?}", place, found);
            }
        }
    }
}
