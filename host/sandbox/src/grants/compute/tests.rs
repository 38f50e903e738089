//! What programs are charged for the rows that they are given, and what ends them.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use sandcast_kernels::StopReason;
use wasmtime::Store;
use wasmtime::component::Resource;

use super::*;
use crate::Grants;
use crate::bindings::adapter::sandcast::plugin::compute::{
    self as wire, HostProgram, HostSession, HostTensor,
};
use crate::bindings::adapter::sandcast::plugin::types::{Failure, FailureCode};
use crate::grants::{ByteSize, ComputeGrant, TimeSpan};
use crate::testing::{Bench, store};

const MEMORY: ByteSize = ByteSize::from_mib(64);

/// Where programs are run as a guest would have them run.
struct Lab {
    bench: Bench,
    store: Store<State>,
}

impl Lab {
    fn new(time: TimeSpan) -> Self {
        let bench = Bench::new();
        let grants = Grants {
            compute: Some(ComputeGrant {
                memory: MEMORY,
                time,
                ..ComputeGrant::default()
            }),
            ..Grants::default()
        };
        let store = store(&bench, grants);
        Self { bench, store }
    }

    fn patient() -> Self {
        Self::new(TimeSpan::from_secs(600))
    }

    fn view(&mut self) -> ComputeView<'_> {
        ComputeView(self.store.data_mut())
    }

    fn budget(&mut self) -> &mut Budget {
        &mut self.store.data_mut().compute.budget
    }

    fn session(&mut self, graph: wire::Graph) -> Resource<SessionHandle> {
        let program = self.view().compile(graph).expect("no trap");
        let program = program.expect("a program");
        let session = self.view().create(program, 1).expect("no trap");
        session.expect("a session")
    }

    /// So many rows of one number.
    fn rows(&mut self, rows: u32) -> Vec<wire::Feed> {
        let value = self.view().repeated(vec![1], rows).expect("no trap");
        vec![wire::Feed {
            input: "x".to_owned(),
            value: value.expect("a tensor"),
        }]
    }

    /// Runs over so many rows, and lets go of the results.
    async fn run(&mut self, session: &Resource<SessionHandle>, rows: u32) -> Result<(), Failure> {
        let feeds = self.rows(rows);
        let session = Resource::new_borrow(session.rep());
        let run = self.view().run(session, "predict".to_owned(), feeds).await;
        for result in run.expect("no trap")? {
            HostTensor::drop(&mut self.view(), result.value).expect("it was there");
        }
        Ok(())
    }

    /// The keys that were in the way, as they are on record.
    fn denied(&self) -> Vec<String> {
        let denials = self.bench.denials().into_iter();
        let lines = denials.map(|(capability, _, line)| {
            assert_eq!(capability, "compute");
            line
        });
        lines
            .map(|line| line.replace("plugins.test.grants.compute.", ""))
            .collect()
    }

    /// Ends a session: nothing is held after it.
    fn end(mut self, session: Resource<SessionHandle>) {
        HostSession::drop(&mut self.view(), session).expect("it was there");
        let all = self.budget().take_memory(MEMORY.bytes());
        all.expect("everything was given back");
    }
}

/// A program over rows of one number, of which it declares so many.
struct Text {
    graph: wire::Graph,
}

impl Text {
    fn of(rows: u32) -> Self {
        let mut text = Self {
            graph: wire::Graph {
                symbols: vec![wire::Symbol {
                    name: "rows".to_owned(),
                    maximum: rows,
                }],
                nodes: Vec::new(),
                entries: Vec::new(),
                loss: None,
                optimizer: None,
                generation: None,
            },
        };
        let x = text.node(wire::Node::Input(wire::Input {
            name: "x".to_owned(),
            dtype: wire::Dtype::Int32,
            shape: vec![wire::Extent::Symbol(0), wire::Extent::Fixed(1)],
        }));
        text.node(wire::Node::Cast(wire::CastNode {
            operand: x,
            dtype: wire::Dtype::Float32,
        }));
        text
    }

    fn node(&mut self, node: wire::Node) -> u32 {
        self.graph.nodes.push(node);
        self.graph.nodes.len() as u32 - 1
    }

    /// Goes on with a matrix of ones.
    fn times(&mut self, shape: [u32; 2]) -> u32 {
        let left = self.graph.nodes.len() as u32 - 1;
        let right = self.node(wire::Node::Parameter(wire::Parameter {
            name: format!("w{left}"),
            shape: shape.to_vec(),
            initializer: wire::Initializer::Ones,
            trainable: true,
        }));
        self.node(wire::Node::Matmul(wire::MatmulNode { left, right }))
    }

    fn answering(mut self) -> wire::Graph {
        let node = self.graph.nodes.len() as u32 - 1;
        self.graph.entries.push(wire::Entry {
            name: "predict".to_owned(),
            outputs: vec![wire::Output {
                name: "y".to_owned(),
                node,
            }],
        });
        self.graph
    }

    /// So many results for each row.
    fn wide(columns: u32) -> wire::Graph {
        let mut text = Self::of(4);
        text.times([1, columns]);
        text.answering()
    }

    /// One result for each row, after much work.
    fn deep() -> wire::Graph {
        let mut text = Self::of(4);
        text.times([1, 64]);
        for _ in 0..12 {
            text.times([64, 64]);
        }
        text.times([64, 1]);
        text.answering()
    }

    /// One that can be trained.
    fn learning() -> wire::Graph {
        let mut text = Self::of(64);
        let line = text.times([1, 1]);
        text.judged_by(line)
    }

    /// The same, after much work for each row.
    fn learning_slowly() -> wire::Graph {
        let mut text = Self::of(64);
        text.times([1, 64]);
        for _ in 0..12 {
            text.times([64, 64]);
        }
        let line = text.times([64, 1]);
        text.judged_by(line)
    }

    fn judged_by(mut self, line: u32) -> wire::Graph {
        let text = &mut self;
        let per_row = text.node(wire::Node::Reduce(wire::ReduceNode {
            reduction: wire::Reduction::Sum,
            operand: line,
            axes: vec![1],
            keep: false,
        }));
        text.graph.loss = Some(wire::Loss {
            per_row,
            weight: None,
        });
        text.graph.optimizer = Some(wire::Optimizer::Sgd(wire::Sgd {
            momentum: 0.0,
            weight_decay: 0.0,
        }));
        self.answering()
    }
}

/// Has a run and something else take turns on one thread: what came of it, and the turns of the other.
async fn beside<T>(run: impl Future<Output = T>) -> (T, u64) {
    let is_over = Cell::new(false);
    let running = async {
        let done = run.await;
        is_over.set(true);
        done
    };
    let other = async {
        let mut turns = 0;
        while !is_over.get() {
            turns += 1;
            tokio::task::yield_now().await;
        }
        turns
    };
    tokio::join!(running, other)
}

#[tokio::test]
async fn a_run_is_charged_for_the_rows_that_it_is_given() {
    let mut lab = Lab::patient();
    let program = lab.view().compile(Text::wide(1 << 14)).expect("no trap");
    let program = program.expect("a program");
    let borrowed = Resource::new_borrow(program.rep());
    let costs = lab.view().cost(borrowed).expect("no trap");
    assert!(
        costs.iter().all(|cost| cost.peak_bytes < MEMORY.bytes()),
        "it declares little: {costs:?}"
    );
    let session = lab.view().create(program, 1).expect("no trap");
    let session = session.expect("a session");
    lab.run(&session, 4).await.expect("what it declares");
    lab.run(&session, 64).await.expect("4 MiB of results");
    assert_eq!(lab.denied(), Vec::<String>::new());
    // By its results, and by its inputs.
    for rows in [1 << 20, u32::MAX] {
        let before = lab.bench.denials().len();
        let refused = lab.run(&session, rows).await.expect_err("far too much");
        assert_eq!(refused.code, FailureCode::Exhausted, "{}", refused.message);
        let hint = refused.hint.expect("what would help");
        assert!(
            hint.contains("plugins.test.grants.compute.memory"),
            "{hint}"
        );
        assert_eq!(lab.denied()[before..], ["memory"]);
    }
    lab.run(&session, 64).await.expect("as before");
    lab.end(session);
}

#[tokio::test]
async fn what_judges_a_training_is_charged_before_it_begins() {
    let mut lab = Lab::patient();
    let session = lab.session(Text::learning());
    let plan = || wire::TrainPlan {
        epochs: 1,
        epoch_rows: None,
        batch_rows: 64,
        learning_rate: 0.01,
        schedule: wire::Schedule::Constant,
        clip_norm: None,
        patience: None,
        shuffle: false,
        accumulate_steps: 1,
    };
    for (judged, is_granted) in [(1000, true), (u32::MAX, false), (1000, true)] {
        let (training, validation) = (lab.rows(64), lab.rows(judged));
        let borrowed = Resource::new_borrow(session.rep());
        let trained = lab
            .view()
            .train_on(borrowed, training, Some(validation), plan())
            .await;
        let trained = trained.expect("no trap").map(|_| ());
        match is_granted {
            true => trained.expect("it is judged"),
            false => {
                let refused = trained.expect_err("far too much");
                assert_eq!(refused.code, FailureCode::Exhausted);
                assert_eq!(lab.denied(), ["memory"]);
            }
        }
    }
    lab.end(session);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_judges_a_training_ends_with_the_time_there_is() {
    let mut lab = Lab::new(TimeSpan::from_millis(200));
    let session = lab.session(Text::learning_slowly());
    let (training, validation) = (lab.rows(1), lab.rows(1 << 22));
    let plan = wire::TrainPlan {
        epochs: 1,
        epoch_rows: None,
        batch_rows: 64,
        learning_rate: 1e-30,
        schedule: wire::Schedule::Constant,
        clip_norm: None,
        patience: None,
        shuffle: false,
        accumulate_steps: 1,
    };
    let borrowed = Resource::new_borrow(session.rep());
    let began = Instant::now();
    // One step of no work to speak of, and 400 billion operations to judge it.
    let trained = lab
        .view()
        .train_on(borrowed, training, Some(validation), plan)
        .await;
    let refused = trained.expect("no trap").map(|_| ());
    let refused = refused.expect_err("its time is up");
    assert_eq!(refused.code, FailureCode::Exhausted, "{}", refused.message);
    assert_eq!(lab.denied(), ["time"]);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    lab.end(session);
}

#[tokio::test]
async fn a_run_ends_with_the_time_there_is_and_keeps_nobody_waiting() {
    let mut lab = Lab::new(TimeSpan::from_millis(50));
    let session = lab.session(Text::deep());
    let began = Instant::now();
    // 200 billion operations, of which it declares 400 thousand.
    let (run, turns) = beside(lab.run(&session, 1 << 21)).await;
    let refused = run.expect_err("it takes longer");
    assert!(began.elapsed() < Duration::from_secs(60));
    assert!(turns > 1, "the other had {turns} turns");
    assert_eq!(refused.code, FailureCode::Exhausted, "{}", refused.message);
    assert_eq!(lab.denied(), ["time"]);
    // That was all of it.
    let refused = lab.run(&session, 1).await.expect_err("no time is left");
    assert_eq!(refused.code, FailureCode::Exhausted);
    lab.end(session);
}

#[tokio::test]
async fn a_run_of_few_rows_and_much_work_keeps_nobody_waiting() {
    let mut lab = Lab::patient();
    let session = lab.session(Text::deep());
    let rows = INLINE_ROWS as u32;
    let (run, turns) = beside(lab.run(&session, rows)).await;
    run.expect("it has the time");
    assert!(turns > 1, "the other had {turns} turns");
    // What is little is done where it is asked for.
    let (run, turns) = beside(lab.run(&session, 4)).await;
    run.expect("it has the time");
    assert_eq!(turns, 0);
    lab.end(session);
}

#[tokio::test]
async fn runs_are_refused_once_their_operations_are_spent() {
    let mut lab = Lab::patient();
    let session = lab.session(Text::deep());
    lab.run(&session, 4).await.expect("there are enough");
    let one = lab.budget().used().expect("it ran").flops;
    assert!(one > 0);
    lab.budget().limit_flops(one * 2);
    lab.run(&session, 4).await.expect("as many again");
    let refused = lab.run(&session, 4).await.expect_err("they are spent");
    assert_eq!(refused.code, FailureCode::Exhausted, "{}", refused.message);
    assert_eq!(lab.denied(), ["flops"]);
    assert_eq!(lab.budget().used().expect("it ran").flops, one * 2);
    lab.end(session);
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_is_stopped() {
    let mut lab = Lab::patient();
    let state = lab.store.data_mut();
    let (watch, cancel) = watch::RunWatch::new(state);
    assert!(matches!(watch.look(), ControlFlow::Continue(())));
    drop(cancel);
    assert!(matches!(
        watch.look(),
        ControlFlow::Break(StopReason::Cancelled)
    ));
    state.compute.budget.spend_time(Duration::from_secs(600));
    let (watch, _cancel) = watch::RunWatch::new(state);
    assert!(matches!(
        watch.look(),
        ControlFlow::Break(StopReason::Budget { .. })
    ));
}

/// So many words of 8 bytes.
fn bound_to(words: u32) -> Vec<wire::Binding> {
    vec![wire::Binding {
        input: "x".to_owned(),
        encoding: wire::Encoding::Labels(wire::Category {
            column: "c".to_owned(),
            vocabulary: (0..words).map(|word| format!("{word:08}")).collect(),
        }),
    }]
}

#[tokio::test]
async fn words_that_a_session_is_bound_to_are_charged_until_others_take_their_place() {
    let mut lab = Lab::patient();
    let session = lab.session(Text::wide(1));
    let bind = |lab: &mut Lab, bindings| {
        let borrowed = Resource::new_borrow(session.rep());
        lab.view().bind(borrowed, bindings).expect("no trap")
    };
    let held = |lab: &mut Lab| {
        // What is left is found by halves.
        let (mut least, mut most) = (0, MEMORY.bytes() + 1);
        while most - least > 1 {
            let middle = least.midpoint(most);
            match lab.budget().take_memory(middle) {
                Ok(()) => {
                    lab.budget().give_memory(middle);
                    least = middle;
                }
                Err(_) => most = middle,
            }
        }
        MEMORY.bytes() - least
    };
    let before = held(&mut lab);
    let words = |words: u64| words * (8 + VOCABULARY_ENTRY_BYTES);
    // Two of these are more than there is; one in the place of the other is not.
    bind(&mut lab, bound_to(700_000)).expect("there is room");
    let first = held(&mut lab) - before;
    assert!(first >= words(700_000) && first < words(700_010), "{first}");
    bind(&mut lab, bound_to(800_000)).expect("there is room");
    let second = held(&mut lab) - before;
    assert!(second >= words(800_000), "{second}");
    // What there is no room for, or makes no sense, changes nothing.
    let refused = bind(&mut lab, bound_to(1_300_000)).expect_err("too many");
    assert_eq!(refused.code, FailureCode::Exhausted, "{}", refused.message);
    assert_eq!(lab.denied(), ["memory"]);
    let twice = [bound_to(1), bound_to(1)].concat();
    let refused = bind(&mut lab, twice).expect_err("bound twice");
    assert_eq!(refused.code, FailureCode::InvalidInput);
    assert_eq!(held(&mut lab) - before, second);
    let handle = lab.store.data().table.get(&session).expect("it is there");
    let bytes = encode::held_bytes(&handle.bindings);
    assert_eq!(bytes, second, "it is bound as before");
    bind(&mut lab, Vec::new()).expect("nothing");
    assert_eq!(held(&mut lab), before);
    lab.end(session);
}
