use serde_json::{Value, json};

use super::*;

fn grant(value: Value) -> BlobGrant {
    serde_json::from_value(value).expect("a grant")
}

#[test]
fn a_grant_is_told_with_where_it_leads_and_without_a_secret() {
    let told = |value: Value| grant(value).in_words(&|path: &Path| path.display().to_string());
    assert_eq!(
        told(json!({ "store": "own", "to": { "url": "file:/srv/lake" } })),
        "read everything of own (file:/srv/lake)"
    );
    let far = json!({ "url": "s3://lake/raw", "region": "eu-central-1",
        "credentials": { "access_key": { "env": "A" }, "secret_key": { "file": "/k" } } });
    assert_eq!(
        told(json!({ "store": "far", "prefix": "x/", "access": "read-write", "to": far })),
        "read and write x/ of far (s3://lake/raw at s3.eu-central-1.amazonaws.com with file:/k)"
    );
}

#[test]
fn an_answer_is_kept_as_text_and_is_the_same_again() {
    let entry = Entry {
        key: "raw/a".to_owned(),
        size: 3,
        etag: Some("\"x\"".to_owned()),
        modified: Some(7),
    };
    for answer in [
        Ok(Answer::Page {
            entries: vec![entry.clone()],
            cursor: Some("raw/a".to_owned()),
        }),
        Ok(Answer::Head(None)),
        Ok(Answer::Object(Some(Found {
            entry,
            bytes: Blob(Bytes::from_static(b"\0\xff\n")),
        }))),
        Ok(Answer::Object(None)),
        Ok(Answer::Written(None)),
        Ok(Answer::Unmet),
        Ok(Answer::Deleted),
        Err(Trouble::Forbidden),
        Err(Trouble::too_much("entries", "more")),
    ] {
        let kept = serde_json::to_value(&answer).expect("a text");
        let again: Result<Answer, Trouble> = serde_json::from_value(kept).expect("read back");
        assert_eq!(again, answer);
    }
}

#[test]
fn grants_that_make_no_sense_are_refused() {
    let file = json!({ "url": "file:/srv" });
    let bucket = |more: Value| {
        let mut store = json!({ "url": "s3://lake", "region": "x" });
        for (key, value) in more.as_object().expect("keys") {
            store[key] = value.clone();
        }
        json!({ "store": "lake", "to": store })
    };
    let keys = json!({ "access_key": { "env": "A" }, "secret_key": { "env": "B" } });
    for (value, why) in [
        (json!({ "store": "a b", "to": file }), "cannot be a name"),
        (
            json!({ "store": "a", "prefix": "raw", "to": file }),
            "ends with a slash",
        ),
        (json!({ "store": "a", "prefix": "../", "to": file }), "`..`"),
        (
            json!({ "store": "a", "prefix": "raw//", "to": file }),
            "empty part",
        ),
        (
            json!({ "store": "a", "object_bytes": 0, "to": file }),
            "`object_bytes`",
        ),
        (
            json!({ "store": "a", "object_bytes": "1GiB", "to": file }),
            "`object_bytes`",
        ),
        (
            json!({ "store": "a", "timeout": 0, "to": file }),
            "`timeout`",
        ),
        (
            json!({ "store": "a", "to": { "url": "file:/srv", "region": "x" } }),
            "is a folder",
        ),
        (
            json!({ "store": "a", "to": { "url": "s3://lake" } }),
            "`region`",
        ),
        (bucket(json!({ "region": "EU" })), "`region`"),
        (
            bucket(json!({ "endpoint": "https://x.example/path" })),
            "is no endpoint",
        ),
        (
            bucket(json!({ "endpoint": "http://x.example", "credentials": keys })),
            "in the clear",
        ),
    ] {
        let error = check(&grant(value)).expect_err(why);
        assert!(error.contains(why), "{why}: {error}");
    }
    for fine in [
        bucket(json!({})),
        bucket(json!({ "endpoint": "http://x.example" })),
        bucket(json!({ "endpoint": "http://127.0.0.1:9000", "credentials": keys })),
    ] {
        check(&grant(fine)).expect("it makes sense");
    }
    let both = |one: &str, other: &str| {
        let of = |prefix: &str| {
            grant(json!({ "store": "a", "prefix": prefix, "to": { "url": "file:/" } }))
        };
        check_all(&[of(one), of(other)])
    };
    for (one, other) in [
        ("", "raw/"),
        ("raw/", ""),
        ("raw/", "raw/"),
        ("raw/a/", "raw/"),
    ] {
        let error = both(one, other).expect_err(one);
        assert!(error.contains("granted twice"), "{error}");
    }
    both("raw/", "out/").expect("two places of one store");
    both("raw/", "raw-x/").expect("two places of one store");
    let error = check_all(&[grant(json!({ "store": "a" }))]).expect_err("nowhere");
    assert!(error.contains("there is no store `a`"), "{error}");
}
