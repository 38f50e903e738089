//! Adapters of the repository in the sandbox, each through the whole life of its models.

mod forest;
mod network;
mod writer;

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sandcast_build::{BuildRequest, build};

/// A plugin is built once for all tests; builds that overlap wait for each other.
fn component(plugin: &str) -> Vec<u8> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _turn = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let request = BuildRequest::new(plugins.join(plugin));
    let built = build(&request, &mut |_| {}).expect("the plugin builds");
    fs::read(built.component).expect("the component is there")
}
