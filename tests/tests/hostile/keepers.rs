//! Guests that are granted to keep things, and keep more of them, or what is a neighbour's.

use std::fs;
use std::num::NonZeroU32;

use sandcast_sandbox::{ByteSize, Role, StateGrant};
use sandcast_tests::built;
use tempfile::TempDir;

use crate::catalogue::rows_of;
use crate::guests::decide;
use crate::yard::{Yard, grants};

/// Effects and denials of one instance that may be on record.
const ENTRIES: u32 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn keepers() {
    let folder = TempDir::with_prefix("sandcast-hostile-").expect("a folder");
    let place = folder.path().join("plugin-state.sqlite");
    let mut yard = Yard::with("keepers", |config| config.plugin_state = Some(place)).await;
    let component = fs::read(built("tests/guests/hostile-keeper")).expect("the guest");
    let mut to_keep = grants(Role::Policy);
    to_keep.limits.entries = ENTRIES;
    to_keep.state = Some(StateGrant {
        bytes: ByteSize::from_kib(64),
        keys: NonZeroU32::new(20).expect("twenty"),
        value_bytes: ByteSize::from_kib(8),
        ..StateGrant::default()
    });
    let loaded = yard
        .sandbox
        .load("neighbour", &component, Role::Policy, to_keep.clone());
    let neighbour = loaded.await.expect("it loads");
    let first = decide(&neighbour, "behave").await.expect("it keeps");
    assert_eq!(first, ["nothing before"]);
    for row in rows_of("hostile-keeper") {
        // What is kept belongs to the plugin by its name: each of them begins with nothing.
        let loaded = yard
            .sandbox
            .load(row.behaviour, &component, Role::Policy, to_keep.clone());
        let plugin = loaded.await.expect("it loads");
        let afterwards = async {
            let before = decide(&neighbour, "behave").await?;
            assert_eq!(before, ["the same before"], "{row}");
            Ok(before)
        };
        yard.lets(&row, decide(&plugin, row.behaviour), afterwards)
            .await;
    }
    insta::assert_snapshot!("keepers", yard.finish());
}
