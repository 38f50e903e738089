//! Generation: what is kept of a sequence changes nothing but the time it takes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::support::{Builder, ROWS, device, go_on};
use sandcast_kernels::graph::*;
use sandcast_kernels::{
    Caps, Completion, Finish, Program, Prompt, RunError, Sampling, Schedule, Session, Tensor,
    TrainPlan,
};

const VOCABULARY: u32 = 13;
const CONTEXT: u32 = 48;

/// A small decoder: two blocks of attention with fewer heads of keys than of queries.
fn decoder() -> Graph {
    let mut b = Builder::new();
    b.graph.symbols[0].maximum = 64;
    b.graph.symbols.push(Symbol {
        name: "time".into(),
        maximum: CONTEXT,
    });
    let time = Extent::Symbol(1);
    let (heads, key_heads, width) = (4_u32, 2_u32, 6_u32);
    let size = heads * width;
    let tokens = b.input("tokens", DType::Int32, vec![ROWS, time]);
    let positions = b.input("positions", DType::Int32, vec![ROWS, time]);
    let labels = b.input("labels", DType::Int32, vec![ROWS, time]);
    let table = |b: &mut Builder, name: &str, count: u32, indices| {
        let table = b.parameter(name, &[count, size], Initializer::Normal(0.6));
        b.node(Node::Gather(GatherNode { table, indices }))
    };
    let embedded = table(&mut b, "tokens", VOCABULARY, tokens);
    let placed = table(&mut b, "positions", CONTEXT, positions);
    let mut x = b.add(embedded, placed);
    for block in 0..2 {
        let scale = b.parameter(&format!("{block}.norm"), &[size], Initializer::Ones);
        let normal = b.node(Node::RmsNorm(RmsNormNode {
            operand: x,
            scale,
            epsilon: 1e-5,
        }));
        let project = |b: &mut Builder, name: &str, from, shape: [u32; 2], heads: Option<u32>| {
            let weights = b.parameter(
                &format!("{block}.{name}"),
                &shape,
                Initializer::GlorotUniform,
            );
            let result = b.matmul(from, weights);
            match heads {
                None => result,
                Some(heads) => b.node(Node::Reshape(ReshapeNode {
                    operand: result,
                    shape: vec![ROWS, time, Extent::Fixed(heads), Extent::Fixed(width)],
                })),
            }
        };
        let query = project(&mut b, "query", normal, [size, size], Some(heads));
        let key = project(
            &mut b,
            "key",
            normal,
            [size, key_heads * width],
            Some(key_heads),
        );
        let value = project(
            &mut b,
            "value",
            normal,
            [size, key_heads * width],
            Some(key_heads),
        );
        let seen = b.node(Node::Attention(AttentionNode {
            query,
            key,
            value,
            mask: None,
            causal: true,
            scale: None,
        }));
        let seen = b.node(Node::Reshape(ReshapeNode {
            operand: seen,
            shape: vec![ROWS, time, Extent::Fixed(size)],
        }));
        let seen = project(&mut b, "out", seen, [size, size], None);
        x = b.add(x, seen);
        let hidden = project(&mut b, "up", x, [size, 2 * size], None);
        let hidden = b.unary(UnaryOperation::Gelu, hidden);
        let hidden = project(&mut b, "down", hidden, [2 * size, size], None);
        x = b.add(x, hidden);
    }
    let head = b.parameter("head", &[size, VOCABULARY], Initializer::Normal(0.5));
    let logits = b.matmul(x, head);
    let losses = b.node(Node::CrossEntropy(CrossEntropyNode { logits, labels }));
    let per_row = b.reduce(Reduction::Mean, losses, &[1], false);
    b.graph.loss = Some(Loss {
        per_row,
        weight: None,
    });
    b.graph.optimizer = Some(Optimizer::Adam(Adam {
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.01,
        decoupled: true,
    }));
    b.graph.entries.push(Entry {
        name: "logits".into(),
        outputs: vec![Output {
            name: "logits".into(),
            node: logits,
        }],
    });
    b.graph.generation = Some(Generation {
        tokens,
        positions: Some(positions),
        logits,
    });
    b.graph
}

fn session(threads: usize) -> Session {
    let program = Program::compile(decoder(), &Caps::default()).expect("the graph compiles");
    Session::new(Arc::new(program), &device(threads), 11).expect("a session")
}

fn sampling(maximum_tokens: u32) -> Sampling {
    Sampling {
        temperature: 0.0,
        top_k: None,
        top_p: None,
        maximum_tokens,
        stop: vec![],
        seed: 3,
        drawn: 0,
        slide: false,
    }
}

fn prompt(length: u32, salt: u32, sampling: Sampling) -> Prompt {
    Prompt {
        tokens: (0..length)
            .map(|at| (at * 7 + salt * 5) % VOCABULARY)
            .collect(),
        sampling,
    }
}

/// The logits after a sequence, from the whole of it.
fn logits(session: &Session, tokens: &[u32]) -> Vec<f32> {
    let count = tokens.len();
    let row = |values: Vec<i32>| Tensor::from_i32(vec![1, count], values).expect("as many values");
    let feeds = BTreeMap::from([
        (
            "tokens".to_owned(),
            row(tokens.iter().map(|token| *token as i32).collect()),
        ),
        ("positions".to_owned(), row((0..count as i32).collect())),
    ]);
    let results = session.infer("logits", &feeds).expect("the entry runs");
    let all = results[0].1.to_f32();
    all[all.len() - VOCABULARY as usize..].to_vec()
}

fn generate(session: &Session, prompts: Vec<Prompt>, slots: usize) -> Vec<Completion> {
    let watch = &mut |_| ControlFlow::Continue(());
    session
        .generate(prompts, slots, watch)
        .expect("a generation")
}

#[test]
fn tokens_are_those_of_the_whole_sequence_each_time() {
    let session = session(2);
    for length in [1, 2, 17, 33] {
        let start = prompt(length, length, sampling(12));
        let mut tokens = start.tokens.clone();
        let found = generate(&session, vec![start], 1);
        for token in &found[0].tokens {
            let logits = logits(&session, &tokens);
            let best = logits.iter().copied().fold(f32::MIN, f32::max);
            // Equal up to the order of sums.
            assert!(
                best - logits[*token as usize] < 1e-4,
                "after {} tokens",
                tokens.len()
            );
            tokens.push(*token);
        }
        assert_eq!(found[0].tokens.len(), 12);
        assert_eq!(found[0].finish, Finish::Length);
    }
}

#[test]
fn a_sequence_is_the_same_alone_and_among_others_at_any_number_of_threads() {
    let prompts: Vec<Prompt> = (0..9)
        .map(|salt| {
            let hot = Sampling {
                temperature: 1.3,
                top_p: Some(0.95),
                seed: u64::from(salt),
                ..sampling(5 + salt)
            };
            prompt(1 + 4 * salt % 23, salt, hot)
        })
        .collect();
    let one = session(1);
    let alone: Vec<Completion> = prompts
        .iter()
        .flat_map(|prompt| generate(&one, vec![prompt.clone()], 1))
        .collect();
    for threads in [1, 3] {
        let session = session(threads);
        for slots in [1, 4, 9] {
            assert_eq!(generate(&session, prompts.clone(), slots), alone);
        }
    }
    let distinct: std::collections::BTreeSet<_> = alone.iter().map(|one| &one.tokens).collect();
    assert!(distinct.len() > 5, "draws differ");
}

#[test]
fn a_sequence_ends_at_a_stop_token_or_the_context_or_slides_on() {
    let session = session(1);
    let free = generate(&session, vec![prompt(3, 1, sampling(10))], 1);
    let stop = free[0].tokens[4];
    let first = free[0].tokens.iter().position(|token| *token == stop);
    let stopping = Sampling {
        stop: vec![stop],
        ..sampling(10)
    };
    let found = generate(&session, vec![prompt(3, 1, stopping)], 1);
    assert_eq!(found[0].finish, Finish::Stop);
    assert_eq!(
        found[0].tokens,
        free[0].tokens[..first.expect("it is there")]
    );
    let full = generate(&session, vec![prompt(40, 1, sampling(100))], 1);
    assert_eq!(full[0].finish, Finish::Context);
    assert_eq!(full[0].tokens.len() as u32, CONTEXT - 40 + 1);
    let sliding = Sampling {
        slide: true,
        ..sampling(100)
    };
    let slid = generate(&session, vec![prompt(40, 1, sliding)], 1);
    assert_eq!(slid[0].finish, Finish::Length);
    assert_eq!(slid[0].tokens.len(), 100);
    assert_eq!(slid[0].tokens[..9], full[0].tokens[..9]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let session = session(1);
    let cases = [
        (prompt(0, 1, sampling(1)), "no tokens"),
        (
            prompt(CONTEXT + 1, 1, sampling(1)),
            "over the context of 48",
        ),
        (
            Prompt {
                tokens: vec![1, VOCABULARY],
                sampling: sampling(1),
            },
            "outside the vocabulary of 13",
        ),
        (prompt(1, 1, sampling(0)), "maximum of tokens"),
        (
            prompt(
                1,
                1,
                Sampling {
                    temperature: f32::NAN,
                    ..sampling(1)
                },
            ),
            "temperature",
        ),
        (
            prompt(
                1,
                1,
                Sampling {
                    top_p: Some(0.0),
                    ..sampling(1)
                },
            ),
            "top-p",
        ),
        (
            prompt(
                1,
                1,
                Sampling {
                    top_k: Some(0),
                    ..sampling(1)
                },
            ),
            "top-k",
        ),
    ];
    for (prompt, why) in cases {
        let watch = &mut |_| ControlFlow::Continue(());
        let error = session
            .generate(vec![prompt], 1, watch)
            .expect_err("refused");
        assert!(error.to_string().contains(why), "{error}");
    }
    let mut graph = decoder();
    graph.generation = None;
    let program = Program::compile(graph, &Caps::default()).expect("the graph compiles");
    let plain = Session::new(Arc::new(program), &device(1), 1).expect("a session");
    assert_eq!(plain.generator(1).err(), Some(RunError::NotGenerating));
}

#[test]
fn a_program_that_looks_ahead_cannot_generate() {
    let refused = |change: &dyn Fn(&mut Graph)| {
        let mut graph = decoder();
        change(&mut graph);
        let refused = Program::compile(graph, &Caps::default()).expect_err("refused");
        refused.to_string()
    };
    let looks = refused(&|graph| {
        for node in &mut graph.nodes {
            if let Node::Attention(attention) = node {
                attention.causal = false;
            }
        }
    });
    assert!(
        looks.contains("causal attention to those before it"),
        "{looks}"
    );
    let mixed = refused(&|graph| {
        // The mean over positions, added to every one.
        let generation = graph.generation.as_mut().expect("there is one");
        let next = graph.nodes.len() as u32;
        graph.nodes.push(Node::Reduce(ReduceNode {
            reduction: Reduction::Mean,
            operand: generation.logits,
            axes: vec![1],
            keep: true,
        }));
        graph.nodes.push(Node::Binary(BinaryNode {
            operation: BinaryOperation::Add,
            left: generation.logits,
            right: next,
        }));
        generation.logits = next + 1;
    });
    assert!(mixed.contains("causal attention"), "{mixed}");
    let labels = refused(&|graph| {
        let generation = graph.generation.as_mut().expect("there is one");
        generation.tokens = 2;
    });
    assert!(labels.contains("inputs other than"), "{labels}");
    let nowhere = refused(&|graph| {
        let generation = graph.generation.as_mut().expect("there is one");
        generation.logits = 9999;
    });
    assert!(nowhere.contains("not there"), "{nowhere}");
}

#[test]
fn windows_of_a_sequence_train_like_rows_of_their_own() {
    let stream: Vec<i32> = (0..400).map(|at| (at * at % 11 + at % 3) % 13).collect();
    let length = 16;
    let windows =
        |skip: usize| Tensor::windows(stream[skip..].to_vec(), length, 5).expect("windows");
    let count = windows(1).shape()[0];
    let dense = |skip: usize| {
        let values = (0..count).flat_map(|row| stream[skip + row * 5..][..length].to_vec());
        Tensor::from_i32(vec![count, length], values.collect()).expect("as many values")
    };
    let feeds = |of: &dyn Fn(usize) -> Tensor| {
        let tokens = match of(0) {
            // One window more fits without the label behind it.
            tokens if tokens.shape()[0] > count => {
                Tensor::windows(stream[..stream.len() - 5].to_vec(), length, 5).expect("windows")
            }
            tokens => tokens,
        };
        let places = (0..count).flat_map(|_| 0..length as i32).collect();
        BTreeMap::from([
            ("tokens".to_owned(), tokens),
            ("labels".to_owned(), of(1)),
            (
                "positions".to_owned(),
                Tensor::from_i32(vec![count, length], places).expect("as many values"),
            ),
        ])
    };
    let plan = TrainPlan {
        epochs: 4,
        epoch_rows: Some(40),
        batch_rows: 8,
        accumulate_steps: 1,
        learning_rate: 0.01,
        schedule: Schedule::Constant,
        clip_norm: Some(1.0),
        patience: None,
        shuffle: true,
    };
    let mut results = Vec::new();
    for (threads, feeds) in [(1, feeds(&windows)), (3, feeds(&dense))] {
        let mut session = session(threads);
        let report = session
            .train(&feeds, Some(&feeds), &plan, &mut go_on)
            .expect("a training");
        assert_eq!((report.steps, report.rows), (20, 160));
        let losses: Vec<f64> = report.epochs.iter().map(|epoch| epoch.train_loss).collect();
        assert!(losses[3] < losses[0], "{losses:?}");
        let validation: Vec<_> = report
            .epochs
            .iter()
            .map(|epoch| epoch.validation_loss)
            .collect();
        results.push((losses, validation, session.to_safetensors()));
    }
    assert!(results[0] == results[1]);
    assert!(Tensor::windows(stream.clone(), 0, 1).is_err());
    assert!(Tensor::windows(stream, 3, 0).is_err());
}

#[test]
fn a_long_prompt_does_not_hold_up_the_sequences_beside_it() {
    let session = session(1);
    let prompts: Vec<Prompt> = (0..12)
        .map(|salt| prompt(CONTEXT - 3, salt, sampling(2)))
        .collect();
    let alone: Vec<Completion> = prompts
        .iter()
        .flat_map(|prompt| generate(&session, vec![prompt.clone()], 1))
        .collect();
    let mut generator = session.generator(12).expect("a generator");
    for prompt in prompts {
        generator.submit(prompt).expect("a prompt");
    }
    // Twelve prompts of 44 tokens to read ahead are more than one step reads.
    let first = generator.step().expect("a step");
    assert!(
        (1..12).contains(&first.len()),
        "{} were written",
        first.len()
    );
    let mut tokens = vec![Vec::new(); 12];
    let mut written = first;
    while !written.is_empty() {
        for one in written {
            tokens[one.sequence as usize].extend(one.token);
        }
        written = generator.step().expect("a step");
    }
    let expected: Vec<_> = alone.into_iter().map(|one| one.tokens).collect();
    assert_eq!(tokens, expected);
}

#[test]
fn a_sequence_goes_on_where_an_earlier_generation_ended() {
    let session = session(1);
    let hot = |maximum_tokens, drawn| Sampling {
        temperature: 1.5,
        drawn,
        ..sampling(maximum_tokens)
    };
    let start = prompt(5, 2, hot(20, 0));
    let whole = generate(&session, vec![start.clone()], 1);
    let mut tokens = start.tokens.clone();
    for piece in [7, 1, 12] {
        let drawn = (tokens.len() - 5) as u32;
        let prompt = Prompt {
            tokens: tokens.clone(),
            sampling: hot(piece, drawn),
        };
        tokens.extend(&generate(&session, vec![prompt], 1)[0].tokens);
    }
    assert_eq!(tokens[5..], whole[0].tokens);
}

#[test]
fn what_a_generation_costs_is_known_before() {
    let session = session(1);
    let program = session.program();
    let cost = |slots, length| {
        program
            .generation_cost(slots, length)
            .expect("it can generate")
    };
    // Two layers keep the keys and values of two heads of 6 numbers of each position.
    let kept = 2 * 2 * 12 * 4;
    assert!(cost(64, 48).peak_bytes >= 64 * 48 * kept);
    assert!(cost(1, 48).peak_bytes >= 48 * kept);
    assert!(cost(64, 48).peak_bytes > cost(64, 16).peak_bytes);
    assert!(cost(64, 48).peak_bytes > 3 * cost(8, 48).peak_bytes);
    assert!(cost(64, 48).flops_of_step > cost(1, 48).flops_of_step);
    assert_eq!(
        cost(1, 1 << 40),
        cost(1, 48),
        "a sequence is not longer than the context"
    );
    let mut graph = decoder();
    graph.generation = None;
    let plain = Program::compile(graph, &Caps::default()).expect("the graph compiles");
    assert_eq!(plain.generation_cost(1, 1), None);
}

#[test]
fn a_repeated_row_is_like_as_many_rows() {
    let length = 8;
    let tokens: Vec<i32> = (0..40).map(|at| at * 3 % 13).collect();
    let windows = |skip: usize| {
        Tensor::windows(tokens[skip..32 + skip].to_vec(), length, 4).expect("windows")
    };
    let rows = windows(0).shape()[0];
    let places: Vec<i32> = (0..length as i32).collect();
    let dense = Tensor::from_i32(vec![rows, length], places.repeat(rows)).expect("as many values");
    let repeated = Tensor::repeated(places, rows);
    assert_eq!(repeated.shape(), [rows, length]);
    assert_eq!(
        (repeated.elements(), repeated.dense_elements()),
        (length, rows * length)
    );
    let feeds = |positions: Tensor| {
        BTreeMap::from([
            ("tokens".to_owned(), windows(0)),
            ("labels".to_owned(), windows(1)),
            ("positions".to_owned(), positions),
        ])
    };
    let trained = |positions: Tensor| {
        let feeds = feeds(positions);
        let plan = TrainPlan {
            epochs: 2,
            epoch_rows: None,
            batch_rows: 3,
            accumulate_steps: 1,
            learning_rate: 0.01,
            schedule: Schedule::Constant,
            clip_norm: None,
            patience: None,
            shuffle: true,
        };
        let mut session = session(2);
        session
            .train(&feeds, Some(&feeds), &plan, &mut go_on)
            .expect("a training");
        session.to_safetensors()
    };
    assert_eq!(trained(repeated), trained(dense));
}
