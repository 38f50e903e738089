//! What is refused before anything runs, and by which words.

use crate::support::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sandcast_kernels::graph::*;
use sandcast_kernels::{Caps, Diagnostic, Program};

fn refusal(graph: Graph) -> String {
    refusal_under(graph, &Caps::default())
}

fn refusal_under(graph: Graph, caps: &Caps) -> String {
    Program::compile(graph, caps)
        .expect_err("a refusal")
        .to_string()
}

/// A graph whose last node is under test, after an input `x` of [rows, 3] (0), an int32 input
/// `i` of [rows] (1) and a parameter `p` of [3, 2] (2).
fn with(node: Node) -> Graph {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[3]));
    builder.input("i", DType::Int32, by_row(&[]));
    builder.parameter("p", &[3, 2], Initializer::Ones);
    builder.node(node);
    builder.entry("out", &[("x", x)]);
    builder.graph
}

#[test]
fn a_diagnostic_names_the_node_and_what_is_wrong() {
    let float = |shape: &[u32], count: usize| {
        Node::F32Constant(F32Literal {
            shape: shape.to_vec(),
            values: vec![0.0; count],
        })
    };
    let input = |name: &str, shape: Shape| {
        Node::Input(Input {
            name: name.into(),
            dtype: DType::Float32,
            shape,
        })
    };
    let reduce = |axes: &[u32]| {
        Node::Reduce(ReduceNode {
            reduction: Reduction::Sum,
            operand: 0,
            axes: axes.to_vec(),
            keep: false,
        })
    };
    let cases = [
        (
            Node::Unary(UnaryNode {
                operation: UnaryOperation::Tanh,
                operand: 3,
            }),
            "node 3: refers to node 3; a node refers only to nodes before it",
        ),
        (
            Node::Unary(UnaryNode {
                operation: UnaryOperation::Tanh,
                operand: u32::MAX,
            }),
            "node 3: refers to node 4294967295; a node refers only to nodes before it",
        ),
        (
            Node::Unary(UnaryNode {
                operation: UnaryOperation::Tanh,
                operand: 1,
            }),
            "node 3: Tanh does not take int32; cast it to float32",
        ),
        (
            Node::Binary(BinaryNode {
                operation: BinaryOperation::Add,
                left: 0,
                right: 1,
            }),
            "node 3: operand 0 is float32 and operand 1 is int32; cast one",
        ),
        (
            Node::Binary(BinaryNode {
                operation: BinaryOperation::Add,
                left: 0,
                right: 2,
            }),
            "node 3: [rows, 3] and [3, 2] do not broadcast",
        ),
        (
            Node::Binary(BinaryNode {
                operation: BinaryOperation::Power,
                left: 1,
                right: 1,
            }),
            "node 3: power does not take int32; cast both sides to float32",
        ),
        (
            Node::Matmul(MatmulNode { left: 2, right: 0 }),
            "node 3: matrices [3, 2] and [rows, 3]",
        ),
        (
            Node::Matmul(MatmulNode { left: 1, right: 2 }),
            "node 3: operand 1 is int32 and must be float32; cast it",
        ),
        (
            Node::Reshape(ReshapeNode {
                operand: 0,
                shape: fixed(&[3]),
            }),
            "node 3: [rows, 3] cannot take the shape [3]: symbols must stay and the elements be as many",
        ),
        (
            Node::Reshape(ReshapeNode {
                operand: 2,
                shape: fixed(&[u32::MAX, u32::MAX, u32::MAX]),
            }),
            "node 3: [3, 2] cannot take the shape [4294967295, 4294967295, 4294967295]: symbols must stay and the \
          elements be as many",
        ),
        (
            Node::Transpose(TransposeNode {
                operand: 0,
                permutation: vec![0, 0],
            }),
            "node 3: axis 0 is named twice",
        ),
        (
            Node::Transpose(TransposeNode {
                operand: 0,
                permutation: vec![1],
            }),
            "node 3: a permutation of 1 axes for an operand of 2",
        ),
        (
            Node::Broadcast(BroadcastNode {
                operand: 0,
                shape: fixed(&[4, 3]),
            }),
            "node 3: [rows, 3] does not broadcast to [4, 3]",
        ),
        (
            Node::Broadcast(BroadcastNode {
                operand: 2,
                shape: vec![Extent::Symbol(9)],
            }),
            "node 3: symbol 9, of 1",
        ),
        (
            Node::Slice(SliceNode {
                operand: 0,
                axis: 1,
                start: 2,
                limit: 4,
            }),
            "node 3: slice 2..4 of an axis of 3",
        ),
        (
            Node::Slice(SliceNode {
                operand: 0,
                axis: 0,
                start: 0,
                limit: 1,
            }),
            "node 3: axis 0 of [rows, 3] is a symbol and must be fixed",
        ),
        (
            Node::Concatenate(ConcatenateNode {
                operands: vec![],
                axis: 0,
            }),
            "node 3: concatenate of nothing",
        ),
        (
            Node::Concatenate(ConcatenateNode {
                operands: vec![0, 2],
                axis: 1,
            }),
            "node 3: concatenate of float32 [rows, 3] and float32 [3, 2]",
        ),
        (reduce(&[2]), "node 3: axis 2 of an operand of rank 2"),
        (reduce(&[1, 1]), "node 3: axis 1 is named twice"),
        (
            Node::Argmax(ArgmaxNode {
                operand: 0,
                axis: 7,
            }),
            "node 3: axis 7 of an operand of rank 2",
        ),
        (
            Node::Gather(GatherNode {
                table: 0,
                indices: 1,
            }),
            "node 3: the leading extent of a table must be fixed",
        ),
        (
            Node::Gather(GatherNode {
                table: 2,
                indices: 0,
            }),
            "node 3: operand 0 is float32 and must be int32; cast it",
        ),
        (
            Node::Dropout(DropoutNode {
                operand: 0,
                rate: 1.0,
            }),
            "node 3: dropout rate 1; it must be at least 0 and below 1",
        ),
        (
            Node::Dropout(DropoutNode {
                operand: 0,
                rate: f32::NAN,
            }),
            "node 3: dropout rate NaN; it must be at least 0 and below 1",
        ),
        (
            Node::Clamp(ClampNode {
                operand: 0,
                minimum: 1.0,
                maximum: 0.0,
            }),
            "node 3: clamp from 1 to 0",
        ),
        (
            Node::LayerNorm(LayerNormNode {
                operand: 0,
                scale: 2,
                offset: 2,
                epsilon: 1e-5,
            }),
            "node 3: the scale has shape [3, 2]; it must be the last extent of [rows, 3]",
        ),
        (
            Node::CrossEntropy(CrossEntropyNode {
                logits: 2,
                labels: 1,
            }),
            "node 3: labels [rows] for logits [3, 2]; logits must be the labels' shape with the classes \
          behind it",
        ),
        (
            Node::SquaredError(SquaredErrorNode {
                predictions: 0,
                targets: 2,
            }),
            "node 3: predictions [rows, 3] and targets [3, 2] differ in shape",
        ),
        (
            Node::Huber(HuberNode {
                predictions: 0,
                targets: 0,
                delta: 0.0,
            }),
            "node 3: delta 0; it must be finite and above 0",
        ),
        (
            float(&[2, 2], 3),
            "node 3: 3 values for a literal of shape [2, 2]",
        ),
        (
            float(&[u32::MAX, u32::MAX, 2], 0),
            "node 3: shape [4294967295, 4294967295, 2] has too many elements",
        ),
        (input("x", by_row(&[])), "node 3: two inputs are named `x`"),
        (input("", by_row(&[])), "node 3: input without a name"),
        (
            input("y", vec![Extent::Symbol(1)]),
            "node 3: symbol 1, of 1",
        ),
        (
            input("y", fixed(&[1; 9])),
            "node 3: rank 9, over the cap of 8",
        ),
        (
            input("y", by_row(&[1 << 20])),
            "node 3: [rows, 1048576] is more elements than the cap of 1073741824, with symbols at their maximum",
        ),
        (
            input("y", fixed(&[u32::MAX; 8])),
            "node 3: [4294967295, 4294967295, 4294967295, 4294967295, 4294967295, 4294967295, 4294967295, \
          4294967295] is more elements than the cap of 1073741824, with symbols at their maximum",
        ),
        (
            Node::Parameter(Parameter {
                name: "p".into(),
                shape: vec![1],
                initializer: Initializer::Zeros,
                trainable: true,
            }),
            "node 3: two parameters are named `p`",
        ),
        (
            Node::Parameter(Parameter {
                name: "q".into(),
                shape: vec![1],
                initializer: Initializer::Normal(-1.0),
                trainable: true,
            }),
            "node 3: initial spread -1; it must be finite, not negative",
        ),
        (
            Node::Parameter(Parameter {
                name: "__metadata__".into(),
                shape: vec![1],
                initializer: Initializer::Zeros,
                trainable: true,
            }),
            "node 3: parameter name `__metadata__` is taken by the safetensors format",
        ),
    ];
    for (node, expected) in cases {
        let shown = format!("{node:?}");
        assert_eq!(refusal(with(node)), expected, "{shown}");
    }
}

#[test]
fn graphs_are_refused_as_a_whole() {
    let base = || {
        with(Node::Unary(UnaryNode {
            operation: UnaryOperation::Relu,
            operand: 0,
        }))
    };
    let edit = |change: &dyn Fn(&mut Graph)| {
        let mut graph = base();
        change(&mut graph);
        refusal(graph)
    };
    assert_eq!(
        edit(&|g| g.entries.clear()),
        "a graph without entries and without a loss computes nothing"
    );
    assert_eq!(
        edit(&|g| g.entries[0].outputs[0].node = 4),
        "output `x` of entry `out` refers to node 4, of 4"
    );
    assert_eq!(
        edit(&|g| g.entries[0].outputs.clear()),
        "entry `out` has no outputs"
    );
    assert_eq!(
        edit(&|g| g.entries[0].name = "loss".into()),
        "an entry is named `loss`, which stands for one training step"
    );
    assert_eq!(
        edit(&|g| g.entries.push(g.entries[0].clone())),
        "two entries are named `out`"
    );
    assert_eq!(
        edit(&|g| g.symbols[0].maximum = 0),
        "symbol `rows` has a maximum of 0"
    );
    assert_eq!(
        edit(&|g| g.symbols.push(g.symbols[0].clone())),
        "two symbols are named `rows`"
    );
    assert_eq!(
        edit(&|g| g.loss = Some(Loss {
            per_row: 3,
            weight: None
        })),
        "node 3: the loss must be a float32 node of shape [rows], rows a symbol"
    );
    assert_eq!(
        edit(&|g| g.loss = Some(Loss {
            per_row: 1,
            weight: None
        })),
        "node 1: the loss must be a float32 node of shape [rows], rows a symbol"
    );
    assert_eq!(
        edit(&|g| g.loss = Some(Loss {
            per_row: 9,
            weight: None
        })),
        "the loss refers to node 9, of 4"
    );
    assert_eq!(
        edit(&|g| g.optimizer = Some(Optimizer::Sgd(Sgd {
            momentum: 1.0,
            weight_decay: 0.0
        }))),
        "the optimizer's momentum is 1; it must be at least 0 and below 1"
    );
    assert_eq!(
        edit(&|g| {
            let Optimizer::Adam(adam) = adam() else {
                return;
            };
            g.optimizer = Some(Optimizer::Adam(Adam {
                epsilon: 0.0,
                ..adam
            }));
        }),
        "the optimizer's epsilon is 0; it must be finite and above 0"
    );
    // A symbol that no input gives.
    assert_eq!(
        edit(&|g| {
            g.symbols.push(Symbol {
                name: "free".into(),
                maximum: 4,
            });
            g.nodes.push(Node::Broadcast(BroadcastNode {
                operand: 2,
                shape: vec![Extent::Symbol(1), Extent::Fixed(3), Extent::Fixed(2)],
            }));
            g.entries[0].outputs[0].node = 4;
        }),
        "symbol `free` of `out` is an extent of none of its inputs"
    );
}

#[test]
fn caps_hold_before_anything_is_allocated() {
    let graph = || classifier(30, 2, 0.0).graph;
    let under = |caps: Caps| refusal_under(graph(), &caps);
    let caps = Caps::default;
    assert_eq!(
        under(Caps { nodes: 5, ..caps() }),
        "18 nodes, over the cap of 5"
    );
    assert_eq!(
        under(Caps {
            symbols: 0,
            ..caps()
        }),
        "1 symbols, over the cap of 0"
    );
    assert_eq!(
        under(Caps {
            entries: 0,
            ..caps()
        }),
        "1 entries, over the cap of 0"
    );
    assert_eq!(
        under(Caps {
            parameters_bytes: 40_000,
            ..caps()
        }),
        "node 7: parameters of 162816 bytes up to here, over the cap of 40000"
    );
    assert!(
        under(Caps {
            elements_per_tensor: 1000,
            ..caps()
        })
        .starts_with("node 0: [rows, 30] is more elements")
    );
    let flops = under(Caps {
        flops: 1000,
        ..caps()
    });
    assert!(
        flops.contains("floating-point operations with symbols at their maximum"),
        "{flops}"
    );
    let peak = under(Caps {
        peak_bytes: 1000,
        ..caps()
    });
    assert!(
        peak.contains("bytes at the peak with symbols at their maximum"),
        "{peak}"
    );
    let mut hostile = graph();
    hostile.nodes.push(Node::Concatenate(ConcatenateNode {
        operands: vec![0; 20_000],
        axis: 1,
    }));
    assert_eq!(
        refusal(hostile),
        "node 18: 20000 operands of concatenates up to here, over the cap of 16384"
    );
}

#[test]
fn costs_are_those_of_the_formulas() {
    let program = classifier(30, 2, 0.0).compile();
    let costs = program.costs();
    assert_eq!(
        costs
            .iter()
            .map(|cost| cost.entry.as_str())
            .collect::<Vec<_>>(),
        ["predict", "loss"]
    );
    let products = 2 * 4096 * (30 * 256 + 256 * 128 + 128 * 2);
    assert!(
        costs[0].flops > products && costs[0].flops < products * 21 / 20,
        "{costs:?}"
    );
    // Twice as much again for the gradient, but for that of the input.
    let step = 3 * products - 2 * 4096 * 30 * 256;
    assert!(
        costs[1].flops > step && costs[1].flops < step * 21 / 20,
        "{costs:?}"
    );
    assert_eq!(
        program.parameter_count(),
        30 * 256 + 256 + 256 * 128 + 128 + 128 * 2 + 2
    );
    let weights = 4 * program.parameter_count();
    assert!(
        costs[0].peak_bytes > 2 * weights && costs[0].peak_bytes < 4_000_000,
        "{costs:?}"
    );
    assert!(
        costs[1].peak_bytes > 32 * weights && costs[1].peak_bytes < 100_000_000,
        "{costs:?}"
    );
}

#[test]
fn the_digest_is_of_the_graph_and_json_keeps_it() {
    let mut graph = classifier(30, 2, 0.1).graph;
    graph.nodes.push(Node::Clamp(ClampNode {
        operand: 0,
        minimum: f32::NEG_INFINITY,
        maximum: f32::INFINITY,
    }));
    graph.nodes.push(Node::F32Constant(F32Literal {
        shape: vec![3],
        values: vec![0.1, f32::INFINITY, -0.0],
    }));
    let digest = |graph: &Graph| {
        Program::compile(graph.clone(), &Caps::default())
            .expect("fine")
            .digest()
    };
    let text = serde_json::to_string(&graph).expect("json");
    let back: Graph = serde_json::from_str(&text).expect("the graph again");
    assert_eq!(back, graph);
    assert_eq!(digest(&back), digest(&graph));
    let mut other = graph.clone();
    other.nodes.pop();
    assert_ne!(digest(&other), digest(&graph));
    let refused = serde_json::from_str::<Graph>(&text.replace("\"inf\"", "\"infinite\""));
    assert!(
        refused
            .expect_err("not a number")
            .to_string()
            .contains("infinite")
    );
}

/// Any node at all, most of them nonsense.
fn any_node() -> impl Strategy<Value = Node> {
    let id = || prop_oneof![8 => 0_u32..12, 1 => any::<u32>()];
    let small = || prop_oneof![8 => 0_u32..5, 1 => any::<u32>()];
    let list = move || prop::collection::vec(small(), 0..4);
    let extent = move || {
        prop_oneof![
            3 => small().prop_map(Extent::Fixed),
            1 => (0_u32..3).prop_map(Extent::Symbol),
        ]
    };
    let shape = move || prop::collection::vec(extent(), 0..4);
    let float = || {
        prop_oneof![
            -2.0_f32..2.0,
            Just(f32::NAN),
            Just(f32::INFINITY),
            Just(0.0)
        ]
    };
    let name = || "[a-c]{0,1}";
    let dtype = || prop_oneof![Just(DType::Float32), Just(DType::Int32)];
    use UnaryOperation::*;
    let unary = prop::sample::select(vec![
        Negate,
        Exponential,
        Relu,
        Gelu,
        Floor,
        LogicalNot,
        SquareRoot,
    ]);
    let binary = prop::sample::select(vec![
        BinaryOperation::Add,
        BinaryOperation::Divide,
        BinaryOperation::Power,
        BinaryOperation::Maximum,
    ]);
    let comparison = prop::sample::select(vec![Comparison::Equal, Comparison::Less]);
    let fold = prop::sample::select(vec![Reduction::Sum, Reduction::Mean, Reduction::Maximum]);
    let start = prop::sample::select(vec![
        Initializer::Zeros,
        Initializer::GlorotUniform,
        Initializer::Normal(1.0),
    ]);
    prop_oneof![
        (name(), dtype(), shape()).prop_map(|(name, dtype, shape)| Node::Input(Input {
            name,
            dtype,
            shape
        })),
        (name(), list(), start, any::<bool>()).prop_map(|(name, shape, initializer, trainable)| {
            Node::Parameter(Parameter {
                name,
                shape,
                initializer,
                trainable,
            })
        }),
        (list(), prop::collection::vec(float(), 0..5))
            .prop_map(|(shape, values)| Node::F32Constant(F32Literal { shape, values })),
        (list(), prop::collection::vec(-1..5_i32, 0..5))
            .prop_map(|(shape, values)| Node::I32Constant(I32Literal { shape, values })),
        (unary, id())
            .prop_map(|(operation, operand)| Node::Unary(UnaryNode { operation, operand })),
        (binary, id(), id()).prop_map(|(operation, left, right)| {
            Node::Binary(BinaryNode {
                operation,
                left,
                right,
            })
        }),
        (comparison, id(), id()).prop_map(|(comparison, left, right)| {
            Node::Compare(CompareNode {
                comparison,
                left,
                right,
            })
        }),
        (id(), id(), id()).prop_map(|(condition, on_true, on_false)| {
            Node::Select(SelectNode {
                condition,
                on_true,
                on_false,
            })
        }),
        (id(), dtype()).prop_map(|(operand, dtype)| Node::Cast(CastNode { operand, dtype })),
        (id(), shape()).prop_map(|(operand, shape)| Node::Reshape(ReshapeNode { operand, shape })),
        (id(), list()).prop_map(|(operand, permutation)| Node::Transpose(TransposeNode {
            operand,
            permutation
        })),
        (id(), shape())
            .prop_map(|(operand, shape)| Node::Broadcast(BroadcastNode { operand, shape })),
        (id(), small(), small(), small()).prop_map(|(operand, axis, start, limit)| {
            Node::Slice(SliceNode {
                operand,
                axis,
                start,
                limit,
            })
        }),
        (prop::collection::vec(id(), 0..4), small())
            .prop_map(|(operands, axis)| { Node::Concatenate(ConcatenateNode { operands, axis }) }),
        (fold, id(), list(), any::<bool>()).prop_map(|(reduction, operand, axes, keep)| {
            Node::Reduce(ReduceNode {
                reduction,
                operand,
                axes,
                keep,
            })
        }),
        (id(), small()).prop_map(|(operand, axis)| Node::Argmax(ArgmaxNode { operand, axis })),
        (id(), small(), any::<bool>()).prop_map(|(operand, axis, logarithm)| {
            Node::Softmax(SoftmaxNode {
                operand,
                axis,
                logarithm,
            })
        }),
        (id(), id()).prop_map(|(left, right)| Node::Matmul(MatmulNode { left, right })),
        (id(), id()).prop_map(|(table, indices)| Node::Gather(GatherNode { table, indices })),
        (id(), small()).prop_map(|(indices, depth)| Node::OneHot(OneHotNode { indices, depth })),
        (id(), float()).prop_map(|(operand, rate)| Node::Dropout(DropoutNode { operand, rate })),
        (id(), id(), id()).prop_map(|(operand, scale, offset)| {
            Node::LayerNorm(LayerNormNode {
                operand,
                scale,
                offset,
                epsilon: 0.1,
            })
        }),
        (id(), id())
            .prop_map(|(logits, labels)| Node::CrossEntropy(CrossEntropyNode { logits, labels })),
        (id(), id()).prop_map(|(predictions, targets)| {
            Node::SquaredError(SquaredErrorNode {
                predictions,
                targets,
            })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever a guest sends is refused or runs; nothing panics.
    #[test]
    fn no_graph_brings_the_host_down(
        nodes in prop::collection::vec(any_node(), 1..60),
        extents in prop::array::uniform2(0_usize..4),
        per_row in any::<prop::sample::Index>(),
    ) {
        let mut graph = Graph {
            symbols: vec![
                Symbol { name: "rows".into(), maximum: 3 },
                Symbol { name: "other".into(), maximum: 3 },
            ],
            ..Graph::default()
        };
        let caps = Caps { elements_per_tensor: 1 << 12, parameters_bytes: 1 << 20, flops: 1 << 24, ..Caps::default() };
        // Nodes that fit are kept, so that graphs grow.
        let outputs = |node| vec![Entry {
            name: "all".into(), outputs: vec![Output { name: "last".into(), node }] }];
        let mut last: Option<Program> = None;
        for node in nodes {
            graph.nodes.push(node);
            graph.entries = outputs(graph.nodes.len() as u32 - 1);
            match Program::compile(graph.clone(), &caps) {
                Ok(program) => last = Some(program),
                Err(Diagnostic { node, message }) => {
                    prop_assert!(!message.is_empty());
                    prop_assert!(node.is_none_or(|node| node as usize == graph.nodes.len() - 1));
                    graph.nodes.pop();
                }
            }
        }
        let Some(program) = last else { return Ok(()) };
        let feeds = feeds_for(program.graph(), extents);
        let session = session(&std::sync::Arc::new(program), 1, 1);
        // An error is as good as a result.
        let _ = session.infer("all", &feeds);
        // And a loss, where a node can be one.
        graph.loss = Some(Loss { per_row: per_row.index(graph.nodes.len()) as u32, weight: None });
        if let Ok(program) = Program::compile(graph, &caps) {
            let _ = crate::support::session(&std::sync::Arc::new(program), 2, 1).gradients(&feeds);
        }
    }
}

fn feeds_for(graph: &Graph, symbols: [usize; 2]) -> sandcast_kernels::Feeds {
    let mut feeds = sandcast_kernels::Feeds::new();
    for node in &graph.nodes {
        let Node::Input(input) = node else { continue };
        let shape: Vec<usize> = input
            .shape
            .iter()
            .map(|extent| match extent {
                Extent::Fixed(value) => *value as usize,
                Extent::Symbol(symbol) => symbols[*symbol as usize],
            })
            .collect();
        let count = shape.iter().product();
        let tensor = match input.dtype {
            DType::Float32 => f32s(&shape, numbers(count, 5)),
            DType::Int32 => i32s(&shape, (0..count as i32).map(|x| x % 3).collect()),
        };
        feeds.insert(input.name.clone(), tensor);
    }
    feeds
}
