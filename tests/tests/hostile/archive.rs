//! The first-party connector, which means well, on files that grow when they are read.

use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use sandcast_sandbox::{Access, FileGrant, FileQuota, Role};
use sandcast_tests::built;
use serde_json::json;
use tempfile::TempDir;

use crate::catalogue::rows_of;
use crate::guests::read;
use crate::yard::{Yard, grants};

/// Bytes of a bomb when it is read.
const BYTES: usize = 256 << 20;

/// A file in gzip: how it begins, and what it goes on with. Gzip of gzip, one after the other, is gzip
/// of both.
fn bomb(head: &str, piece: &str) -> Vec<u8> {
    let packed = |text: &str| {
        let mut file = GzEncoder::new(Vec::new(), Compression::new(6));
        file.write_all(text.as_bytes()).expect("memory");
        file.finish().expect("memory")
    };
    let piece = piece.repeat((1 << 20) / piece.len());
    [packed(head), packed(&piece).repeat(BYTES / piece.len())].concat()
}

fn bombing(behaviour: &str) -> Vec<u8> {
    match behaviour {
        "bomb-of-rows" => bomb("a,b\n", "1,2\n"),
        "bomb-of-one-line" => bomb("a,b\n", "x"),
        "bomb-of-one-field" => bomb("a,b\n1,\"", "x\n"),
        "bomb-of-columns" => bomb("a", ",abcd"),
        other => panic!("`{other}` is not known here"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives() {
    let mut yard = Yard::new("archives").await;
    let component = fs::read(built("plugins/connector-csv")).expect("the plugin");
    for row in rows_of("connector-csv") {
        let folder = TempDir::with_prefix("sandcast-hostile-").expect("a folder");
        let bytes = bombing(row.behaviour);
        assert!(
            bytes.len() < 4 << 20,
            "it is small when it lies there: {}",
            bytes.len()
        );
        fs::write(folder.path().join("bomb.csv.gz"), bytes).expect("a file");
        fs::write(folder.path().join("good.csv"), "a,b\n1,2\n").expect("a file");
        let mut with_folder = grants(Role::Connector);
        with_folder.files = vec![FileGrant {
            host: folder.path().to_path_buf(),
            guest: "/data".into(),
            access: Access::Read,
            quota: FileQuota::default(),
        }];
        let loaded = yard
            .sandbox
            .load("csv", &component, Role::Connector, with_folder);
        let plugin = loaded.await.expect("it loads");
        let (config, good) = (
            json!({ "path": "/data/bomb.csv.gz" }),
            json!({ "path": "/data/good.csv" }),
        );
        yard.lets(&row, read(&plugin, &config), read(&plugin, &good))
            .await;
    }
    insta::assert_snapshot!("archives", yard.finish());
}
