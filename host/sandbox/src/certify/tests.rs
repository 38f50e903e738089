use serde_json::json;

use super::asked::{Content, lesson, odd_configurations, table};
use super::*;

#[test]
fn tables_are_of_every_kind_and_odd_configurations_are_near_the_good_one() {
    for content in [Content::Ordinary, Content::Extreme, Content::Null] {
        for rows in [0, 1, 64] {
            let table = table(rows, content).expect("a table");
            assert_eq!((table.num_rows(), table.num_columns()), (rows, 7));
            crate::columns::Batch::lend(&table).expect("it can be lent");
        }
    }
    assert_eq!(lesson(100).expect("a table").num_columns(), 8);
    let odd = odd_configurations(&json!({ "url": "x", "times": 3 }));
    assert!(odd.iter().any(|it| it["url"] == "x" && it["times"] == -1));
    assert!(odd.iter().all(Value::is_object));
}

fn examination() -> Examination {
    let trial = |id: &str, weight, verdict| Trial {
        id: id.to_owned(),
        demand: "it is to".to_owned(),
        weight,
        verdict,
        detail: "seen".to_owned(),
    };
    Examination {
        trials_version: TRIALS_VERSION,
        host: "0.1.0".to_owned(),
        plugin: PluginRef {
            id: "acme/rules".to_owned(),
            version: "1.0.0".to_owned(),
            role: "validator".to_owned(),
            digest: Digest::of(b"component"),
        },
        configuration: Digest::of(b"{}"),
        grants: Grants::default(),
        trials: vec![
            trial("loads", Demand::Must, Verdict::Passed),
            trial("handy", Demand::Should, Verdict::Failed),
            trial("same-twice", Demand::Must, Verdict::Skipped),
        ],
    }
}

#[test]
fn what_matters_decides() {
    let mut examination = examination();
    assert!(examination.is_passed());
    assert_eq!(examination.count(Verdict::Failed), 1);
    examination.trials[0].verdict = Verdict::Failed;
    assert!(!examination.is_passed());
}
