//! The committed files are what the generator writes.

use std::{fs, io::Read, path::Path};

use credit_risk_data::{SEED, branch_csv, web_csv};
use flate2::read::GzDecoder;

fn data(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../data")
        .join(file);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn branch_csv_is_reproduced_byte_for_byte() {
    assert!(
        data("branch.csv") == branch_csv(SEED).as_bytes(),
        "data/branch.csv differs; `cargo run -p credit-risk-data` writes it anew"
    );
}

#[test]
fn web_csv_is_reproduced_byte_for_byte_inside_its_compression() {
    let mut text = String::new();
    GzDecoder::new(data("web.csv.gz").as_slice())
        .read_to_string(&mut text)
        .expect("web.csv.gz is a gzip file of text");
    assert!(
        text == web_csv(SEED),
        "data/web.csv.gz differs; `cargo run -p credit-risk-data` writes it anew"
    );
}

#[test]
fn another_seed_gives_other_people() {
    assert_ne!(branch_csv(SEED), branch_csv(SEED + 1));
}
