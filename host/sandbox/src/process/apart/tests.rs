//! Processes that lie: what the host makes of it, and what its state is afterwards.

use std::io::Write as _;
use std::thread;

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use sandcast_audit::{Digest, HostUse, PluginRef};
use serde_json::json;
use wasmtime::component::Resource;

use super::super::wire::{Wire, bytes_of, value_of};
use super::*;
use crate::bindings::adapter::sandcast::plugin::types::{self, Failure};
use crate::columns::{Batch, Dataset};
use crate::testing::{Bench, store};

/// The host's end for a process that is none: the other end of its pipe.
fn house(imports: &[Capability]) -> (Apart, Pipe) {
    let (ours, theirs) = Pipe::pair().expect("a pipe");
    let child = std::process::Command::new("true").spawn().expect("a child");
    ours.set_nonblocking(true).expect("a pipe");
    let pipe = UnixStream::from_std(ours.try_clone().expect("a pipe")).expect("a pipe");
    let order = Order {
        confinement: Confinement {
            memory_bytes: 0,
            processor_seconds: None,
            ends_with_parent: false,
        },
        name: "test".into(),
        reference: PluginRef {
            id: "test/guest".into(),
            version: "1.2.3".into(),
            role: "adapter".into(),
            digest: Digest::of(b"guest"),
        },
        role: Role::Adapter,
        grants: Grants::default(),
        asks_host: true,
        component_bytes: 0,
        artifact_bytes: 0,
    };
    let workshop = Workshop {
        program: ProcessProgram::at("nothing"),
        order,
        imports: imports.to_vec(),
        component: Arc::from([]),
        artifact: Vec::new(),
        idle: Mutex::default(),
    };
    let worker = Worker {
        child,
        pipe: ours,
        served: 0,
    };
    let apart = Apart {
        workshop: Arc::new(workshop),
        worker: Some((worker, pipe)),
        most: Most {
            bytes: 1 << 20,
            words: 1 << 10,
            last_words: 1 << 10,
        },
    };
    (apart, theirs)
}

fn request(kind: u8, name: &str, arguments: &[u8]) -> Vec<u8> {
    let mut said = vec![kind];
    name.to_owned().put(&mut said);
    said.extend_from_slice(arguments);
    said
}

#[test]
fn what_a_process_says_it_used_can_be_added_up() {
    let said = |seconds: f64, number: u64| {
        let reply = Reply {
            outcome: Outcome::Said,
            denials: Vec::new(),
            lines: Vec::new(),
            usage: crate::call::Usage {
                host_calls: [("log.log".to_owned(), number)].into(),
                host_use: [(
                    "log.log".to_owned(),
                    HostUse {
                        calls: number,
                        seconds,
                        bytes_in: number,
                        bytes_out: number,
                    },
                )]
                .into(),
                bytes_in: number,
                bytes_out: number,
                guest_seconds: seconds,
                peak_memory_bytes: number,
                denials: number,
                recording: None,
            },
            host_calls: number,
            traced: None,
        };
        let mut said = Vec::new();
        serde_json::to_vec(&reply).expect("JSON").put(&mut said);
        read_reply(&said, 1 << 10).expect("an answer").0
    };
    for (seconds, most) in [(f64::MAX, MOST_SECONDS), (-1.0, 0.0), (0.25, 0.25)] {
        let reply = said(seconds, u64::MAX);
        assert_eq!(reply.usage.guest_seconds, most);
        assert_eq!(reply.host_calls, MOST_COUNTED);
        assert_eq!(reply.usage.host_calls["log.log"], MOST_COUNTED);
        let logged = reply.usage.host_use["log.log"];
        assert_eq!(logged.seconds, most);
        let counted = [logged.calls, logged.bytes_in, logged.bytes_out];
        assert_eq!(counted, [MOST_COUNTED; 3]);
        let usage = &reply.usage;
        let told = [
            usage.bytes_in,
            usage.bytes_out,
            usage.peak_memory_bytes,
            usage.denials,
        ];
        assert_eq!(told, [MOST_COUNTED; 4]);
    }
    assert_eq!(
        said(0.0, 7).usage.bytes_in,
        7,
        "what may be is as it is said"
    );
}

fn reply() -> Vec<u8> {
    let reply = Reply {
        outcome: Outcome::Said,
        denials: Vec::new(),
        lines: Vec::new(),
        usage: crate::call::Usage::default(),
        host_calls: 0,
        traced: None,
    };
    let mut said = vec![away::REPLY];
    serde_json::to_vec(&reply).expect("JSON").put(&mut said);
    said
}

/// What a process is answered that says these things and then that its guest returned; and how the
/// call ends.
async fn told_to(
    state: &mut State,
    imports: &[Capability],
    lies: Vec<Vec<u8>>,
) -> (Vec<Vec<u8>>, Result<Vec<u8>, String>) {
    let (mut apart, mut pipe) = house(imports);
    let lying = thread::spawn(move || {
        let asked = frame::read(&mut pipe, 1 << 20).expect("a question");
        assert!(asked.is_some());
        let mut answers = Vec::new();
        for lie in lies {
            frame::write(&mut pipe, &lie).expect("it is heard");
            if lie.first() == Some(&away::REQUEST) {
                match frame::read(&mut pipe, 1 << 20) {
                    Ok(Some(answer)) => answers.push(answer),
                    _ => return answers,
                }
            }
        }
        // The host may be gone by then.
        let _ = frame::write(&mut pipe, &reply());
        answers
    });
    let question = Question::Describe;
    let said = apart.converse(state, &question, None).await;
    drop(apart);
    let said = said
        .map(|(_, value)| value)
        .map_err(|error| error.to_string());
    (lying.join().expect("it ended"), said)
}

fn rows() -> RecordBatch {
    RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)])
        .expect("rows")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_may_not_say_ends_its_call() {
    let bench = Bench::new();
    let compute = [Capability::Compute];
    let from_columns = "[static]batch.from-columns";
    for (imports, lies, why) in [
        (&[][..], vec![vec![9]], "something of the kind 9"),
        (&[], vec![vec![]], "the pipe was closed"),
        (
            &[],
            vec![request(away::REQUEST, "wasi:filesystem.open", b"")],
            "`wasi:filesystem.open`, which its plugin does not import",
        ),
        (
            &[],
            vec![request(away::REQUEST, "session.create", &[0; 12])],
            "does not import",
        ),
        (
            &[],
            vec![request(away::REQUEST, "sql.query", &[0; 12])],
            "does not import",
        ),
        (
            &[],
            vec![request(away::REQUEST, "[method]descriptor.read", &[0; 20])],
            "does not import",
        ),
        (
            &compute,
            vec![request(away::REQUEST, "handle", &[0; 5])],
            "does not import",
        ),
        (
            &[Capability::Files],
            vec![request(
                away::REQUEST,
                "[method]descriptor.open-at",
                &[0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0],
            )],
            "a case 1, which there is not",
        ),
        (
            &[],
            vec![request(away::REQUEST, "poll", &[0xff; 4])],
            "more room than there is",
        ),
        (
            &[],
            vec![request(away::LET_GO, "input-stream.drop", &[1, 0, 0, 0])],
            "let go of a thing of the host that it does not have",
        ),
        (
            &compute,
            vec![request(away::REQUEST, "session.create", &[0; 11])],
            "cut short",
        ),
        (
            &compute,
            vec![request(away::REQUEST, "session.create", &[0; 13])],
            "1 bytes after what was to be said",
        ),
        (
            &compute,
            vec![request(away::REQUEST, "program.compile", &[0xff; 4])],
            "more room than there is",
        ),
        (
            &[],
            vec![request(away::REQUEST, from_columns, &[1, 0, 0, 0])],
            "cut short",
        ),
        (
            &[],
            vec![request(away::LET_GO, "batch.drop", &[7, 0, 0, 0])],
            "let go of a thing of the host that it does not have",
        ),
        (&[], vec![[vec![away::REPLY], vec![0; 4]].concat()], "EOF"),
    ] {
        let mut store = store(&bench, Grants::default());
        let state = store.data_mut();
        state.clock.start().expect("there is time");
        let (_, said) = told_to(state, imports, lies).await;
        let error = said.expect_err(why);
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_could_have_asked_for_is_answered_as_it_would_have_been() {
    let bench = Bench::new();
    let mut store = store(&bench, Grants::default());
    let state = store.data_mut();
    state.clock.start().expect("there is time");
    let batch = state
        .table
        .push(Batch::lend(&rows()).expect("a batch"))
        .expect("room");
    let dataset = state
        .table
        .push(Dataset::lend(&[rows()]).expect("a dataset"))
        .expect("room");
    let field = types::Field {
        name: "id".into(),
        kind: types::Kind::Int64,
        nullable: false,
    };
    // One column of 9 rows with the bytes of 2, and no validity.
    let mut columns = bytes_of(&vec![field]);
    columns.extend([1, 0, 0, 0, 9, 0, 0, 0, 1, 16, 0, 0, 0]);
    columns.extend([0; 17]);
    let ask = |name: &str, bytes: &[u8]| request(away::REQUEST, name, bytes);
    let (batch, dataset) = (batch.rep().to_le_bytes(), dataset.rep().to_le_bytes());
    let (answers, said) = told_to(
        state,
        &[Capability::Compute],
        vec![
            ask("[method]batch.rows", &batch),
            // A number of another kind, and one of nothing.
            ask("[method]batch.rows", &dataset),
            ask("[method]batch.rows", &[99, 0, 0, 0]),
            ask("tensor.shape", &batch),
            ask("[static]batch.from-columns", &columns),
            // Nothing of it is granted.
            ask("tensor.repeated", &[1, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0]),
            request(away::LET_GO, "batch.drop", &batch),
            ask("[method]batch.rows", &batch),
        ],
    )
    .await;
    said.expect("it returned");
    let kinds: Vec<u8> = answers.iter().map(|answer| answer[0]).collect();
    assert_eq!(kinds, [0, 1, 1, 1, 0, 0, 1]);
    assert_eq!(answers[0][1..], [2, 0, 0, 0]);
    for (trap, words) in [(1, "another type"), (2, "not"), (3, "another type")] {
        let told: String = value_of(&answers[trap][1..], 1 << 10).expect("words");
        assert!(told.contains(words), "{told}");
    }
    let made: Result<Resource<Batch>, Failure> =
        value_of(&answers[4][1..], 1 << 10).expect("an answer");
    let refused = made.map(|_| ()).expect_err("it is malformed");
    assert!(
        refused.message.contains("2 values, not the 9"),
        "{refused:?}"
    );
    let kept: Result<Resource<Batch>, Failure> =
        value_of(&answers[5][1..], 1 << 10).expect("an answer");
    let refused = kept.map(|_| ()).expect_err("there is no budget");
    assert!(refused.message.contains("budget"), "{refused:?}");
    let calls = state.ledger.calls();
    assert_eq!(calls["batch.rows"], 4);
    assert_eq!(calls["compute.tensor-repeated"], 1);
    assert_eq!(bench.denials().len(), 1);
    assert_eq!(json!(calls).as_object().map(serde_json::Map::len), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_does_not_hold_is_a_trap_wherever_it_is_asked_of() {
    let bench = Bench::new();
    let mut store = store(&bench, Grants::default());
    let state = store.data_mut();
    state.clock.start().expect("there is time");
    let batch = state
        .table
        .push(Batch::lend(&rows()).expect("a batch"))
        .expect("room");
    let batch = batch.rep().to_le_bytes();
    let ask = |name: &str, bytes: &[&[u8]]| request(away::REQUEST, name, &bytes.concat());
    let (eight, nothing) = ([8, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0]);
    let imports = [Capability::Files, Capability::Http, Capability::Clock];
    let (answers, said) = told_to(
        state,
        &imports,
        vec![
            ask("[method]input-stream.blocking-read", &[&batch, &eight]),
            ask("[method]output-stream.write", &[&[99, 0, 0, 0], &nothing]),
            ask("[method]descriptor.read", &[&batch, &eight, &eight]),
            ask("[method]pollable.block", &[&batch]),
            ask("poll", &[&nothing]),
            ask("handle", &[&batch, &[0]]),
            ask("[method]fields.get", &[&batch, &nothing]),
            // What it may have, it is given a number of.
            ask("get-stdout", &[]),
            ask("[constructor]fields", &[]),
            ask("counter.subscribe_duration", &[&eight]),
            ask("get-directories", &[]),
        ],
    )
    .await;
    said.expect("it returned");
    let kinds: Vec<u8> = answers.iter().map(|answer| answer[0]).collect();
    assert_eq!(kinds, [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]);
    assert_eq!(answers[10][1..], nothing, "it has no folders");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_more_things_than_it_may_hold_is_ended() {
    let bench = Bench::new();
    let mut grants = Grants::default();
    grants.limits.resources = 10;
    let mut store = store(&bench, grants);
    let state = store.data_mut();
    state.clock.start().expect("there is time");
    let many = vec![request(away::REQUEST, "get-stdout", &[]); 11];
    let (answers, said) = told_to(state, &[], many).await;
    assert_eq!(answers.len(), 10);
    let error = said.expect_err("the table is full");
    assert!(error.contains("no free keys"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_lies_about_lengths_or_goes_away_is_not_waited_for() {
    let bench = Bench::new();
    for (bytes, why) in [
        (u64::MAX.to_le_bytes().to_vec(), "over 1048576"),
        (vec![1, 2, 3], "end of file"),
        ([&9_u64.to_le_bytes()[..], &[1]].concat(), "closed"),
        (Vec::new(), "end of file"),
    ] {
        let mut store = store(&bench, Grants::default());
        let state = store.data_mut();
        state.clock.start().expect("there is time");
        let (mut apart, mut pipe) = house(&[]);
        let lying = thread::spawn(move || {
            frame::read(&mut pipe, 1 << 20).expect("a question");
            pipe.write_all(&bytes).expect("it is heard");
        });
        let said = apart.converse(state, &Question::Describe, None).await;
        lying.join().expect("it ended");
        let error = said.map(|_| ()).expect_err("it lied").to_string();
        assert!(error.contains(why), "{error}");
        assert!(error.contains("is gone, or answers wrongly"), "{error}");
    }
}

/// A reply whose JSON is of so many bytes, with as many of a value after it.
fn reply_of_bytes(words: usize, value: usize) -> Vec<u8> {
    let mut said = reply();
    // White space is JSON too.
    let json = &said[5..];
    let words = [json, &vec![b' '; words - json.len()]].concat();
    said.truncate(1);
    words.put(&mut said);
    said.extend(vec![7; value]);
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_read_as_json_is_bounded_and_what_is_not_goes_further() {
    let bench = Bench::new();
    for (words, value, why) in [
        (1 << 10, 1000, None),
        // A model, or a state.
        (1 << 10, 900 << 10, None),
        (
            1025,
            0,
            Some("1025 bytes of its answer are words, and 1024 may be"),
        ),
        (1 << 10, 1 << 20, Some("over 1048576")),
    ] {
        let mut store = store(&bench, Grants::default());
        let state = store.data_mut();
        state.clock.start().expect("there is time");
        let (mut apart, mut pipe) = house(&[]);
        let answering = thread::spawn(move || {
            frame::read(&mut pipe, 1 << 20).expect("a question");
            // The host does not take one that is too long.
            let _ = frame::write(&mut pipe, &reply_of_bytes(words, value));
        });
        let said = apart.converse(state, &Question::Describe, None).await;
        drop(apart);
        answering.join().expect("it ended");
        match (said, why) {
            (Ok((_, said)), None) => assert_eq!(said.len(), value),
            (Err(error), Some(why)) => {
                let error = error.to_string();
                assert!(error.contains(why), "{error}");
            }
            (said, why) => panic!("{:?}, not {why:?}", said.map(|_| ())),
        }
    }
    // Also where the Store is in the process too.
    for (words, is_heard) in [(1 << 10, true), (1025, false)] {
        let (mut apart, mut pipe) = house(&[]);
        let answering = thread::spawn(move || {
            frame::read(&mut pipe, 1 << 20).expect("a question");
            let _ = frame::write(&mut pipe, &reply_of_bytes(words, 0));
        });
        let said = apart.ask(&Question::Judge, None).await;
        drop(apart);
        answering.join().expect("it ended");
        assert_eq!(said.is_ok(), is_heard, "{words}: {:?}", said.map(|_| ()));
    }
}

#[test]
fn a_process_may_say_what_its_guest_may_return_and_no_hundreds_of_mebibytes_of_json() {
    let mut grants = Grants::default();
    let most = Most::of(&grants);
    assert_eq!(most.words, (64 + 16) << 20);
    assert_eq!(most.last_words, most.words);
    assert!(most.bytes > grants.limits.output_bytes.bytes());
    grants.limits.output_bytes = crate::ByteSize::from_kib(1);
    grants.recording = Some(crate::RecordingGrant::default());
    let most = Most::of(&grants);
    assert_eq!(most.words, 4096 + (16 << 20));
    assert_eq!(most.last_words, most.words + (512 << 20));
}
