use std::num::NonZeroU32;
use std::sync::Arc;

use super::super::super::{Access, ByteSize};
use super::*;

fn space(pipeline: &str, name: &str, plugin: &str) -> Space {
    Space {
        pipeline: pipeline.into(),
        name: name.into(),
        plugin: plugin.into(),
    }
}

fn mine() -> Space {
    space("line", "crm", "acme/crm")
}

fn grant() -> StateGrant {
    StateGrant {
        access: Access::ReadWrite,
        bytes: ByteSize::from_bytes(100),
        keys: NonZeroU32::new(3).expect("three"),
        value_bytes: ByteSize::from_bytes(50),
        pipeline: None,
    }
}

fn in_memory() -> Pairs {
    Pairs::open(None).expect("a store in memory")
}

fn pair(key: &str, length: usize) -> (String, Vec<u8>) {
    (key.to_owned(), vec![7; length])
}

fn quota(outcome: Result<(), Trouble>) -> String {
    match outcome {
        Err(Trouble::Full { quota, .. }) => quota,
        other => panic!("{other:?}"),
    }
}

fn value(pairs: &Pairs, space: &Space, key: &str) -> Option<Vec<u8>> {
    let mut found = pairs.get(space, &[key.to_owned()]).expect("it reads");
    found.pop().flatten().map(|found| found.value.0)
}

#[test]
fn what_is_kept_is_there_and_nobody_elses() {
    let pairs = in_memory();
    pairs.set(&mine(), &grant(), &[pair("a", 3)]).expect("kept");
    assert_eq!(value(&pairs, &mine(), "a"), Some(vec![7; 3]));
    for other in [
        space("other", "crm", "acme/crm"),
        space("line", "erp", "acme/crm"),
        space("line", "crm", "evil/crm"),
        space("", "crm", "acme/crm"),
    ] {
        assert_eq!(value(&pairs, &other, "a"), None, "{other:?}");
        assert_eq!(
            pairs.list(&other, "").expect("listed"),
            Vec::<String>::new()
        );
        pairs.delete(&other, &["a".into()]).expect("nothing to do");
    }
    assert_eq!(value(&pairs, &mine(), "a"), Some(vec![7; 3]));
}

#[test]
fn quotas_count_what_is_there() {
    let pairs = in_memory();
    let set = |new: &[(String, Vec<u8>)]| pairs.set(&mine(), &grant(), new);
    assert_eq!(quota(set(&[pair("a", 51)])), "value_bytes");
    set(&[pair("a", 49), pair("b", 40)]).expect("1 + 49 + 1 + 40");
    assert_eq!(quota(set(&[pair("c", 9)])), "bytes");
    set(&[pair("c", 8)]).expect("the last byte");
    assert_eq!(quota(set(&[pair("b", 41)])), "bytes");
    set(&[pair("a", 1)]).expect("it shrinks");
    assert_eq!(quota(set(&[pair("d", 1)])), "keys");
    pairs
        .delete(&mine(), &["a".into(), "nowhere".into()])
        .expect("gone");
    set(&[pair("d", 1)]).expect("there is room again");
    // All or nothing.
    assert_eq!(quota(set(&[pair("b", 1), pair("e", 1)])), "keys");
    assert_eq!(value(&pairs, &mine(), "b"), Some(vec![7; 40]));
    // Under a smaller quota what is there stays, and may shrink.
    let less = StateGrant {
        bytes: ByteSize::from_bytes(10),
        ..grant()
    };
    assert_eq!(quota(pairs.set(&mine(), &less, &[pair("d", 2)])), "bytes");
    pairs
        .set(&mine(), &less, &[pair("b", 30)])
        .expect("it shrinks");
}

#[test]
fn a_swap_happens_when_nothing_else_did() {
    let pairs = in_memory();
    let swap = |value: &[u8], version| {
        pairs.swap(&mine(), &grant(), ("a".into(), value.to_vec()), version)
    };
    let now = || pairs.version(&mine(), "a").expect("it reads");
    assert_eq!(now(), None);
    assert_eq!(swap(b"1", None).expect("asked"), None);
    let first = now();
    assert_eq!(swap(b"2", None).expect("asked"), Some(Stored(first)));
    assert_eq!(swap(b"2", first).expect("asked"), None);
    // The same bytes again are a change all the same, and so is taking it out and back in.
    let second = now();
    pairs
        .set(&mine(), &grant(), &[("a".into(), b"2".to_vec())])
        .expect("kept");
    assert_eq!(swap(b"3", second).expect("asked"), Some(Stored(now())));
    let third = now();
    pairs.delete(&mine(), &["a".into()]).expect("gone");
    pairs
        .set(&mine(), &grant(), &[("a".into(), b"2".to_vec())])
        .expect("kept");
    assert_ne!(swap(b"3", third).expect("asked"), None);
    assert_eq!(value(&pairs, &mine(), "a"), Some(b"2".to_vec()));
}

#[test]
fn adding_is_exact_from_many_threads_and_processes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plugin-state.sqlite");
    // Each has a connection of its own, as another process has.
    let adding: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                let pairs = Arc::new(Pairs::open(Some(&path)).expect("opened"));
                for _ in 0..25 {
                    pairs.increment(&mine(), &grant(), "n", 1).expect("added");
                }
            })
        })
        .collect();
    for one in adding {
        one.join().expect("no panic");
    }
    let pairs = Pairs::open(Some(&path)).expect("opened again");
    assert_eq!(
        pairs.increment(&mine(), &grant(), "n", -1).expect("less"),
        99
    );
    for (bytes, what) in [
        (b"x".to_vec(), "no whole number"),
        (b"9223372036854775807".to_vec(), "64 bits"),
    ] {
        pairs
            .set(&mine(), &grant(), &[("n".into(), bytes.clone())])
            .expect("kept");
        let error = pairs.increment(&mine(), &grant(), "n", 1).expect_err(what);
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(value(&pairs, &mine(), "n"), Some(bytes));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn keys_come_in_pages() {
    let pairs = in_memory();
    let grant = StateGrant::default();
    let new: Vec<_> = (0..1500).map(|n| (format!("{n:04}"), Vec::new())).collect();
    pairs.set(&mine(), &grant, &new).expect("kept");
    let first = pairs.list(&mine(), "").expect("listed");
    assert_eq!((first.len(), first[0].as_str()), (1000, "0000"));
    let rest = pairs.list(&mine(), &first[999]).expect("listed");
    assert_eq!((rest.len(), rest[0].as_str()), (500, "1000"));
}

#[test]
fn a_file_of_another_layout_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plugin-state.sqlite");
    let connection = Connection::open(&path).expect("a file");
    connection
        .pragma_update(None, "user_version", 9)
        .expect("written");
    drop(connection);
    let error = Pairs::open(Some(&path)).err().expect("refused");
    assert!(error.contains("layout 9"), "{error}");
    std::fs::write(&path, "no database at all, but long enough to look at it").expect("written");
    assert!(Pairs::open(Some(&path)).is_err());
}
