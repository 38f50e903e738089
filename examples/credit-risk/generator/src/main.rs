//! Writes `branch.csv` and `web.csv.gz` into a folder, by default the example's own.

use std::{env, fs, io::Write, path::PathBuf};

use credit_risk_data::{SEED, branch_csv, web_csv};
use flate2::{Compression, GzBuilder};

fn main() -> std::io::Result<()> {
    let folder = env::args_os().nth(1).map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../data")),
        PathBuf::from,
    );
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("branch.csv"), branch_csv(SEED))?;
    // No name and no time in the header: the bytes depend on the content alone.
    let mut gzip = GzBuilder::new().write(
        fs::File::create(folder.join("web.csv.gz"))?,
        Compression::best(),
    );
    gzip.write_all(web_csv(SEED).as_bytes())?;
    gzip.finish()?;
    Ok(())
}
