//! Writes `readings.csv` into a folder, by default the example's own.

use std::{env, fs, path::PathBuf};

use pump_telemetry_data::{SEED, readings_csv};

fn main() -> std::io::Result<()> {
    let folder = env::args_os().nth(1).map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../data")),
        PathBuf::from,
    );
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("readings.csv"), readings_csv(SEED))
}
