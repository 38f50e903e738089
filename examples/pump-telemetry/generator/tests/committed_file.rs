//! The committed file is what the generator writes.

use std::{fs, path::Path};

use pump_telemetry_data::{READINGS, SEED, readings_csv};

#[test]
fn readings_csv_is_reproduced_byte_for_byte() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/readings.csv");
    let committed = fs::read_to_string(&path).expect("the file is there");
    assert!(
        committed == readings_csv(SEED),
        "data/readings.csv differs; `cargo run -p pump-telemetry-data` writes it anew"
    );
}

#[test]
fn faults_are_few_and_no_gauge_shows_them_by_itself() {
    let csv = readings_csv(SEED);
    let lines: Vec<Vec<&str>> = csv
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect())
        .collect();
    assert_eq!(lines.len(), READINGS as usize);
    let faulty = |line: &&Vec<&str>| line[8] == "fault";
    let faults = lines.iter().filter(faulty).count();
    assert!((50..=110).contains(&faults), "{faults}");
    for gauge in 2..8 {
        let values = |is_fault: bool| {
            let found = lines.iter().filter(|line| faulty(line) == is_fault);
            let value = |line: &Vec<&str>| line[gauge].parse::<f64>().expect("a number");
            found.map(value).collect::<Vec<f64>>()
        };
        let usual = values(false);
        let least = usual.iter().copied().fold(f64::INFINITY, f64::min);
        let most = usual.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let outside_of_all = values(true)
            .iter()
            .filter(|it| !(least..=most).contains(*it))
            .count();
        assert!(
            outside_of_all * 5 <= faults,
            "gauge {gauge}: {outside_of_all} of {faults} are outside"
        );
    }
    assert_ne!(csv, readings_csv(SEED + 1));
}
