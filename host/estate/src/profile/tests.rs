use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Date32Array, Float64Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::trial::Trial;

#[tokio::test]
async fn columns_are_described() {
    let trial = Trial::start();
    let people = trial.people("people", 8_000).await;
    let profile = trial.estate.profile(&people, None).await.expect("profiles");
    assert_eq!(
        (profile.dataset, profile.rows, profile.columns.len()),
        (people.digest, 8_000, 3)
    );
    let [id, age, city] = profile.columns.as_slice() else {
        panic!("three columns")
    };

    assert_eq!((id.count, id.nulls, id.distinct_exact), (8_000, 0, false));
    assert!((7_800..=8_200).contains(&id.distinct), "{}", id.distinct);
    assert_eq!(
        (id.min.as_deref(), id.max.as_deref()),
        (Some("0"), Some("7999"))
    );
    let histogram = id.histogram.as_ref().expect("numbers have one");
    assert_eq!(histogram.counts, vec![400; 20]);

    assert_eq!((age.count, age.nulls, age.distinct), (7_200, 800, 72));
    let numbers = age.numbers.as_ref().expect("numbers");
    assert!((numbers.mean - 40.0).abs() < 1e-9, "{}", numbers.mean);
    assert_eq!((numbers.not_finite, numbers.quantiles_exact), (0, true));
    assert!(
        numbers.quantiles.contains(&(0.5, 40.0)),
        "{:?}",
        numbers.quantiles
    );

    assert_eq!(
        (city.distinct, city.min.as_deref(), city.max.as_deref()),
        (3, Some("Lyon"), Some("Ulm"))
    );
    let top: Vec<_> = city
        .top
        .iter()
        .map(|value| (value.value.as_str(), value.count))
        .collect();
    assert_eq!(top, [("Lyon", 2667), ("Ulm", 2667), ("Oslo", 2666)]);
    assert!(city.numbers.is_none() && city.histogram.is_none() && city.top_exact);

    assert_eq!(
        trial.estate.profile(&people, None).await.expect("profiles"),
        profile
    );
}

#[tokio::test]
async fn odd_columns_are_described_too() {
    let trial = Trial::start();
    let schema = Arc::new(Schema::new(vec![
        Field::new("empty", DataType::Float64, true),
        Field::new("odd", DataType::Float64, true),
        Field::new("day", DataType::Date32, true),
        Field::new("yes", DataType::Boolean, true),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Float64Array::from(vec![None::<f64>; 3])),
        Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, 2.0])),
        Arc::new(Date32Array::from(vec![Some(0), None, Some(10)])),
        Arc::new(BooleanArray::from(vec![true, false, true])),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("a batch");
    let dataset = trial.dataset("odd", &schema, &[batch]).await;
    let profile = trial
        .estate
        .profile(&dataset, None)
        .await
        .expect("profiles");
    let [empty, odd, day, yes] = profile.columns.as_slice() else {
        panic!("four columns")
    };
    assert_eq!(
        (
            empty.count,
            empty.nulls,
            empty.distinct,
            &empty.min,
            &empty.histogram
        ),
        (0, 3, 0, &None, &None)
    );
    let numbers = odd.numbers.as_ref().expect("numbers");
    assert_eq!(
        (numbers.not_finite, numbers.mean, odd.count, &odd.histogram),
        (2, 2.0, 3, &None)
    );
    assert_eq!(
        (day.min.as_deref(), day.max.as_deref()),
        (Some("1970-01-01"), Some("1970-01-11"))
    );
    let histogram = day.histogram.as_ref().expect("dates have one");
    assert_eq!(
        (histogram.edges[20], histogram.counts.iter().sum::<u64>()),
        (10.0, 2)
    );
    assert_eq!((yes.top[0].value.as_str(), yes.top[0].count), ("true", 2));
    let json = serde_json::to_string(&profile).expect("JSON");
    assert_eq!(
        serde_json::from_str::<crate::Profile>(&json).expect("and back"),
        profile
    );
}

#[tokio::test]
async fn a_dataset_without_rows_has_a_profile() {
    let trial = Trial::start();
    let people = trial.people("people", 0).await;
    let profile = trial.estate.profile(&people, None).await.expect("profiles");
    assert_eq!(
        (
            profile.rows,
            profile.columns.len(),
            profile.columns[0].count
        ),
        (0, 3, 0)
    );
}
