//! Runs the bundles of Sigstore's conformance suite, `test/assets/bundle-verify` of
//! <https://github.com/sigstore/sigstore-conformance>, which the public Sigstore has signed.
//!
//! `cargo run --example conformance -- FOLDER TRUSTED_ROOT`, with the root of trust of the public Sigstore.
//! What must not hold and does, and what must hold and is refused without being of a kind that is never
//! taken here, is an end of 1.

#![expect(clippy::print_stdout, reason = "it tells what it found")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use sandcast_sigstore::{BundleFault, TrustRoot, verify};

/// Who signed, where a case does not say.
const IDENTITY: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
const ISSUER: &str = "https://token.actions.githubusercontent.com";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(root)) = (arguments.next(), arguments.next()) else {
        return Err("it wants the folder `bundle-verify` and a trusted_root.json".into());
    };
    let root = fs::read_to_string(root)?;
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    cases.retain(|case| case.is_dir());
    cases.sort();
    let (mut as_told, mut not_taken, mut wrong) = (0, 0, 0);
    for case in &cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy();
        let must_hold = !name.ends_with("_fail");
        let found = holds(case, &folder, &root)?;
        let verdict = match &found {
            Err(Refused::NotTaken(_)) if must_hold => {
                not_taken += 1;
                "not taken here"
            }
            found if found.is_ok() == must_hold => {
                as_told += 1;
                "as it must"
            }
            _ => {
                wrong += 1;
                "WRONG"
            }
        };
        let why = match found {
            Ok(()) => "it holds".to_owned(),
            Err(Refused::NotTaken(why) | Refused::Faulty(why)) => why,
        };
        println!("{verdict:<14} {name}: {why}");
    }
    println!(
        "{} cases: {as_told} as they must, {not_taken} of kinds that are not taken, {wrong} wrong",
        cases.len()
    );
    Ok(ExitCode::from(u8::from(wrong > 0 || cases.is_empty())))
}

/// Why a case does not hold.
enum Refused {
    /// It is of a kind that never does.
    NotTaken(String),
    Faulty(String),
}

fn holds(case: &Path, folder: &Path, root: &str) -> Result<Result<(), Refused>, Box<dyn Error>> {
    let own = |name: &str| {
        let path = case.join(name);
        path.exists().then(|| fs::read_to_string(path)).transpose()
    };
    if own("key.pub")?.is_some() {
        let why = "it is held against a bare key";
        return Ok(Err(Refused::NotTaken(why.to_owned())));
    }
    let artifact = match case.join("artifact") {
        own if own.exists() => own,
        _ => folder.join("a.txt"),
    };
    let artifact = fs::read(artifact)?;
    let bundle = own("bundle.sigstore.json")?.ok_or("a case without a bundle")?;
    let own_root = own("trusted_root.json")?;
    let root = match TrustRoot::parse(own_root.as_deref().unwrap_or(root)) {
        Ok(root) => root,
        Err(fault) => return Ok(Err(Refused::Faulty(fault.to_string()))),
    };
    let signer = match verify(&artifact, &bundle, &root) {
        Ok(signer) => signer,
        Err(fault @ BundleFault::Unsupported { .. }) => {
            return Ok(Err(Refused::NotTaken(fault.to_string())));
        }
        Err(fault) => return Ok(Err(Refused::Faulty(fault.to_string()))),
    };
    let identity = own("identity")?.unwrap_or_else(|| IDENTITY.to_owned());
    let issuer = own("issuer")?.unwrap_or_else(|| ISSUER.to_owned());
    if (signer.identity.as_str(), signer.issuer.as_str()) != (identity.trim(), issuer.trim()) {
        let why = format!("{} of {} signed it", signer.identity, signer.issuer);
        return Ok(Err(Refused::Faulty(why)));
    }
    Ok(Ok(()))
}
