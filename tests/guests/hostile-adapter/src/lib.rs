//! An adapter that misbehaves as its hyperparameters say. What it is to do in `predict` travels in
//! the state of the model.

mod beyond;

use sandcast_sdk::columns::Rows;
use sandcast_sdk::forest::{
    Forest, ForestColumns, ForestExamples, ForestObjective, ForestPlan, ForestTarget,
};
use sandcast_sdk::graph::{
    Category, Dtype, Encoding, Extent, Graph, GraphBuilder, Initializer, Optimizer, Program,
    Prompt, Reduction, Sampling, Schedule, Tensor, TrainPlan, bind, feed,
};
use sandcast_sdk::{
    Adapter, Batch, Declaration, Description, Failure, Model, Session, Task, TaskKind, Trained,
    Training, target,
};
use serde::{Deserialize, Serialize};

/// What to do, in the call where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// A straight line.
    Behave,
    /// Never comes back from `train`.
    Spin,
    /// Takes memory until there is none.
    Memory,
    /// Traps in `train`.
    Trap,
    /// Trains without end.
    TrainForever,
    /// A graph of very many nodes.
    GiantGraph,
    /// A parameter of very many numbers.
    GiantParameter,
    /// A tensor whose extents multiply past 2^64.
    OverflowingShape,
    /// A symbol of the largest extent there is.
    GiantSymbol,
    /// A node that refers to one after it.
    ForwardReference,
    /// A node that refers to one that does not exist.
    MissingNode,
    /// Matrices that do not fit.
    WrongShapes,
    /// An i32 where f32 belongs.
    WrongType,
    /// A number that is none, as a literal.
    NanLiteral,
    /// A graph without a loss.
    NoLoss,
    /// Training on rows that are not bound to anything.
    NotBound,
    /// A binding of a column that does not exist.
    UnknownColumn,
    /// A batch of no rows.
    NoBatchRows,
    /// A learning rate that is not a number.
    NanRate,
    /// A step of no batches.
    NoAccumulation,
    /// Weights that are not numbers.
    SetNan,
    /// Weights of another shape.
    SetOtherShape,
    /// A parameter that does not exist.
    SetNobody,
    /// Bytes that are no weights.
    ImportGarbage,
    /// Very many bytes of weights.
    ImportLong,
    /// Snapshots without end.
    HoardSnapshots,
    /// Takes weights out and in, remembers and returns; everything is as it was.
    RoundTrip,
    /// Changes what is being served.
    SetInPredict,
    /// Sessions without end.
    HoardSessions,
    /// Tensors without end.
    HoardTensors,
    /// A forest of more trees than there can be.
    GiantForest,
    /// A forest that is grown without end.
    GrowForever,
    /// Forests without end.
    HoardForests,
    /// A forest of a learning rate that is not a number.
    NanForest,
    /// A forest over a column that does not exist.
    ForestUnknownColumn,
    /// The logistic loss of a target of numbers.
    ForestWithoutLabels,
    /// A forest over no column.
    ForestOfNothing,
    /// The logistic loss of three labels.
    ForestOfThreeLabels,
    /// Windows that begin nowhere else than the one before them.
    StandingWindows,
    /// Windows that overlap so much that each by itself is more than there is room for.
    GiantWindows,
    /// A row that is repeated more often than there is room for the order of its copies.
    GiantRepetition,
    /// Training on given inputs without end.
    TrainOnForever,
    /// Training on given inputs that counts more operations than there are for it.
    TrainBeyondCount,
    /// Training on tokens that are not in the vocabulary.
    TrainOnTokensOutside,
    /// A prompt longer than the context.
    GiantPrompt,
    /// A prompt with a token that is not in the vocabulary.
    PromptOutside,
    /// More tokens than there is room for.
    EndlessGeneration,
    /// Tokens without end, as far as there is room.
    LongGeneration,
    /// More prompts than are taken.
    ManyPrompts,
    /// Generating with a program that cannot.
    NotGenerating,
    /// A generation that looks ahead.
    LooksAhead,
    /// A run over so many rows that its results are 2^46 numbers, of a program that declares one.
    RunFarBeyond,
    /// Results that are 16,384 times what is given.
    ManyResults,
    /// A run that is little for the row that it declares, and much for those that are given.
    CostlyRows,
    /// Inputs of different numbers of rows.
    FeedsThatDiffer,
    /// Training on a few rows that is judged by 2^32 - 1.
    JudgedByMany,
    /// A vocabulary of many bytes.
    LongVocabulary,
    /// Sessions that are bound to vocabularies, without end.
    HoardVocabularies,
    /// An input that is bound to the same column as often as it may.
    WideBinding,
    /// Asks for the same column a hundred thousand times at once.
    RepeatedColumns,
    /// Reads the same rows without end, and keeps them.
    HoardReads,
    /// A state of many bytes.
    LongState,
    /// Never comes back from `predict`.
    SpinInPredict,
    /// Traps in `predict`.
    TrapInPredict,
    /// One row fewer than it was given.
    PredictFewerRows,
    /// One row more than it was given.
    PredictMoreRows,
    /// Columns of other names.
    PredictOtherColumns,
    /// Numbers that are none.
    PredictNan,
    /// Probabilities that do not add up to 1.
    PredictMoreThanOne,
    /// Asks for an entry that does not exist.
    UnknownEntry,
    /// Compiles a program and makes a session of it while it predicts, on its own budget.
    CompileInPredict,
    /// Compiles a program while it predicts, but only where it is asked about thirteen rows at once.
    Turncoat,
    /// Names a person in the state of its model.
    PersonInModel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hyperparameters {
    behaviour: Behaviour,
}

struct Hostile;

/// Whom it names.
const PERSON: &str = "mustermann-4711";

#[expect(clippy::empty_loop, reason = "what it is for")]
fn spin() -> ! {
    loop {}
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    panic!("told to");
}

/// A linear model of the task's features, spoilt as told.
fn graph(features: u32, behaviour: Behaviour) -> Graph {
    let g = GraphBuilder::new();
    let maximum = if behaviour == Behaviour::GiantSymbol {
        u32::MAX
    } else {
        4096
    };
    let rows = g.symbol("rows", maximum);
    let x = g.input_f32("x", [rows, features.into()]);
    let y = g.input_f32("y", [rows]);
    let height = if behaviour == Behaviour::WrongShapes {
        features + 1
    } else {
        features
    };
    let weights = g.parameter("weights", &[height, 1], Initializer::Zeros);
    let bias = g.parameter("bias", &[1], Initializer::Zeros);
    let mut line = x.matmul(weights) + bias;
    match behaviour {
        Behaviour::GiantGraph => {
            for _ in 0..2_000_000 {
                line = line.relu();
            }
        }
        Behaviour::GiantParameter => {
            let giant = g.parameter("giant", &[1 << 20, 1 << 20], Initializer::Ones);
            line = line + giant.slice(0, 0, 1).slice(1, 0, 1);
        }
        Behaviour::OverflowingShape => {
            let giant = g.parameter("giant", &[u32::MAX; 8], Initializer::Ones);
            line = line + giant.reshape([1.into(), 1.into()]);
        }
        Behaviour::NanLiteral => line = line * f32::NAN,
        _ => {}
    }
    let line = line.reshape([rows]);
    g.entry("predict", &[("prediction", line.logistic().into())]);
    if behaviour != Behaviour::NoLoss {
        g.minimise(line.binary_cross_entropy(y), None, Optimizer::adam());
    }
    let mut graph = g.finish();
    match behaviour {
        Behaviour::ForwardReference => graph.nodes.swap(0, 4),
        Behaviour::MissingNode => {
            if let Some(entry) = graph.entries.first_mut() {
                entry
                    .outputs
                    .iter_mut()
                    .for_each(|output| output.node = u32::MAX);
            }
        }
        Behaviour::WrongType => {
            use sandcast_sdk::bindings::imports::sandcast::plugin::compute::{Input, Node};
            let shape = vec![Extent::Symbol(0), Extent::Fixed(features)];
            graph.nodes[0] = Node::Input(Input {
                name: "x".into(),
                dtype: Dtype::Int32,
                shape,
            });
        }
        _ => {}
    }
    graph
}

/// What there is to do with the weights of a session.
fn weights(session: &Session, behaviour: Behaviour) -> Result<(), Failure> {
    match behaviour {
        Behaviour::SetNan => session.set("bias", Tensor::from_f32(&[1], &[f32::NAN])?),
        Behaviour::SetOtherShape => session.set("bias", Tensor::from_f32(&[2], &[0.0, 0.0])?),
        Behaviour::SetNobody => session.set("nobody", Tensor::from_f32(&[1], &[0.0])?),
        Behaviour::ImportGarbage => session.import_weights(&[7; 1000]),
        Behaviour::ImportLong => session.import_weights(&vec![7; (64 << 20) + 1]),
        Behaviour::HoardSnapshots => {
            let mut taken = Vec::new();
            loop {
                taken.push(session.snapshot()?);
            }
        }
        Behaviour::RoundTrip => {
            if session.parameters() != ["weights", "bias"] {
                return Err(Failure::internal("other parameters"));
            }
            let before = session.snapshot()?;
            let exported = session.export_weights()?;
            session.set("bias", Tensor::from_f32(&[1], &[7.0])?)?;
            let changed = session.export_weights()?;
            if session.get("bias")?.values() != [7.0] || changed == exported {
                return Err(Failure::internal("the bias stayed"));
            }
            session.restore(before)?;
            if session.get("bias")?.values() != [0.0] {
                return Err(Failure::internal("the bias did not come back"));
            }
            session.import_weights(&changed)?;
            if session.get("bias")?.values() != [7.0] {
                return Err(Failure::internal("the bias was not imported"));
            }
            session.import_weights(&exported)
        }
        _ => Ok(()),
    }
}

/// Tokens that the decoder tells apart.
const VOCABULARY: u32 = 5;

/// A decoder of one attention, spoilt as told.
fn decoder(behaviour: Behaviour) -> Graph {
    let g = GraphBuilder::new();
    let (rows, time) = (g.symbol("rows", 64), g.symbol("time", 32));
    let tokens = g.input_i32("tokens", [rows, time]);
    let labels = g.input_i32("labels", [rows, time]);
    let table = g.parameter("table", &[VOCABULARY, 4], Initializer::Normal(0.1));
    let x = table.gather(tokens);
    let heads = x.reshape([rows, time, 1.into(), 4.into()]);
    let seen = if behaviour == Behaviour::LooksAhead {
        heads.attention(heads, heads, None)
    } else {
        heads.causal_attention(heads, heads)
    };
    let logits = (x + seen.reshape([rows, time, 4.into()])).matmul(table.transpose(&[1, 0]));
    let losses = logits.cross_entropy(labels);
    g.entry("score", &[("losses", losses.into())]);
    g.minimise(
        losses.reduce(Reduction::Mean, &[1], false),
        None,
        Optimizer::adam(),
    );
    if behaviour != Behaviour::NotGenerating {
        g.generate(tokens, None, logits);
    }
    g.finish()
}

fn prompt(tokens: Vec<u32>, maximum_tokens: u32) -> Prompt {
    Prompt {
        tokens,
        sampling: Sampling {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            maximum_tokens,
            stop: Vec::new(),
            seed: 1,
            drawn: 0,
            slide: true,
        },
    }
}

/// Does what a decoder can be asked for and should not be. Whatever comes of it, it is a failure.
fn misuse(behaviour: Behaviour) -> Result<(), Failure> {
    let session = Session::create(Program::compile(&decoder(behaviour))?, 1)?;
    let both = |tensor: &dyn Fn() -> Result<Tensor, Failure>| {
        Ok::<_, Failure>(vec![feed("tokens", tensor()?), feed("labels", tensor()?)])
    };
    let values = |count: usize, value: i32| vec![value; count];
    match behaviour {
        Behaviour::StandingWindows => {
            Tensor::windows(&values(100, 1), 10, 0)?;
        }
        Behaviour::GiantWindows => {
            let windows = || Tensor::windows(&values(1 << 20, 1), 1 << 19, 1);
            session.run("score", both(&windows)?)?;
        }
        Behaviour::GiantRepetition => {
            let repeated = || Tensor::repeated(&values(16, 1), u32::MAX);
            session.train_on(both(&repeated)?, None, plan(behaviour))?;
        }
        Behaviour::TrainOnForever
        | Behaviour::TrainBeyondCount
        | Behaviour::TrainOnTokensOutside => {
            let outside = behaviour == Behaviour::TrainOnTokensOutside;
            let token = if outside { -7 } else { 1 };
            let many = behaviour == Behaviour::TrainBeyondCount;
            let count = if many { 10_000 } else { 2_000 };
            let windows = || Tensor::windows(&values(count, token), 16, 1);
            session.train_on(both(&windows)?, None, plan(behaviour))?;
        }
        Behaviour::GiantPrompt => {
            session.generate(&[prompt(vec![1; 1 << 16], 1)], 1)?;
        }
        Behaviour::PromptOutside => {
            session.generate(&[prompt(vec![VOCABULARY], 1)], 1)?;
        }
        Behaviour::EndlessGeneration => {
            session.generate(&[prompt(vec![1], u32::MAX)], 1)?;
        }
        Behaviour::LongGeneration => {
            session.generate(&[prompt(vec![1], 3_000_000)], 1)?;
        }
        Behaviour::ManyPrompts => {
            session.generate(&vec![prompt(vec![1], 1); 100_000], u32::MAX)?;
        }
        _ => {
            session.generate(&[prompt(vec![1], 1)], 1)?;
        }
    }
    Err(Failure::internal("it was done"))
}

fn plan(behaviour: Behaviour) -> TrainPlan {
    TrainPlan {
        epochs: if matches!(
            behaviour,
            Behaviour::TrainForever | Behaviour::TrainOnForever | Behaviour::TrainBeyondCount
        ) {
            u32::MAX
        } else {
            2
        },
        epoch_rows: None,
        batch_rows: if behaviour == Behaviour::NoBatchRows {
            0
        } else {
            64
        },
        learning_rate: if behaviour == Behaviour::NanRate {
            f32::NAN
        } else {
            0.01
        },
        schedule: Schedule::Constant,
        clip_norm: None,
        patience: None,
        shuffle: true,
        accumulate_steps: if behaviour == Behaviour::NoAccumulation {
            0
        } else {
            1
        },
    }
}

/// A forest of the task, spoilt as told.
fn forest(training: &Training, behaviour: Behaviour) -> Result<Forest, Failure> {
    let task = training.task();
    let mut plan = ForestPlan {
        rounds: 2,
        ..ForestPlan::new(ForestObjective::SquaredError)
    };
    let mut columns = ForestColumns {
        numbers: task
            .features
            .iter()
            .map(|field| field.name.clone())
            .collect(),
        categories: Vec::new(),
    };
    let column = target(&task)?.to_owned();
    let mut target = ForestTarget::Number(column.clone());
    match behaviour {
        Behaviour::GiantForest => {
            plan.rounds = u32::MAX;
            plan.max_leaves = u32::MAX;
        }
        Behaviour::GrowForever => {
            plan.rounds = 30_000;
            plan.max_leaves = 8;
            plan.learning_rate = 1e-6;
            // The same columns over and over: each of them is looked at.
            let again = columns.numbers.iter().cycle().take(100);
            columns.numbers = again.cloned().collect();
        }
        Behaviour::HoardForests => {
            plan.rounds = 1;
            plan.max_leaves = 2;
        }
        Behaviour::NanForest => plan.learning_rate = f32::NAN,
        Behaviour::ForestUnknownColumn => columns.numbers = vec!["no such column".into()],
        Behaviour::ForestWithoutLabels => plan.objective = ForestObjective::Logistic,
        Behaviour::ForestOfNothing => columns.numbers.clear(),
        Behaviour::ForestOfThreeLabels => {
            plan.objective = ForestObjective::Logistic;
            target = ForestTarget::Label(Category {
                column,
                vocabulary: ["a", "b", "c"].map(str::to_owned).to_vec(),
            });
        }
        _ => {}
    }
    let examples = ForestExamples {
        training: training.training_rows(),
        validation: training.validation_rows(),
        columns,
        target,
        weight: None,
    };
    Ok(Forest::train(examples, &plan, training.seed())?.forest)
}

impl Adapter for Hostile {
    type Hyperparameters = Hyperparameters;

    fn describe() -> Description {
        Description {
            name: "hostile".into(),
            tasks: vec![TaskKind::BinaryClassification, TaskKind::Regression],
            hyperparameters:
                r#"{"type": "object", "properties": {"behaviour": {"type": "string"}}}"#.into(),
        }
    }

    fn declare(
        task: &Task,
        _cardinalities: &[u32],
        hyperparameters: Hyperparameters,
    ) -> Result<Declaration, Failure> {
        Ok(graph(task.features.len() as u32, hyperparameters.behaviour).into())
    }

    fn train(training: &Training, hyperparameters: Hyperparameters) -> Result<Trained, Failure> {
        let behaviour = hyperparameters.behaviour;
        match behaviour {
            Behaviour::Spin => spin(),
            Behaviour::Trap => trap(),
            Behaviour::Memory => {
                let mut taken: Vec<Vec<u8>> = Vec::new();
                loop {
                    taken.push(std::hint::black_box(vec![1; 1 << 20]));
                }
            }
            Behaviour::HoardTensors => {
                let mut taken = Vec::new();
                loop {
                    taken.push(Tensor::from_f32(&[1 << 20], &vec![0.0; 1 << 20])?);
                }
            }
            Behaviour::HoardForests => {
                let mut taken = Vec::new();
                loop {
                    taken.push(forest(training, behaviour)?);
                }
            }
            Behaviour::GiantForest
            | Behaviour::GrowForever
            | Behaviour::NanForest
            | Behaviour::ForestUnknownColumn
            | Behaviour::ForestWithoutLabels
            | Behaviour::ForestOfNothing
            | Behaviour::ForestOfThreeLabels => {
                let forest = forest(training, behaviour)?;
                return Ok(Trained::new(vec![behaviour as u8], forest));
            }
            Behaviour::StandingWindows
            | Behaviour::GiantWindows
            | Behaviour::GiantRepetition
            | Behaviour::TrainOnForever
            | Behaviour::TrainBeyondCount
            | Behaviour::TrainOnTokensOutside
            | Behaviour::GiantPrompt
            | Behaviour::PromptOutside
            | Behaviour::EndlessGeneration
            | Behaviour::LongGeneration
            | Behaviour::ManyPrompts
            | Behaviour::NotGenerating
            | Behaviour::LooksAhead => misuse(behaviour)?,
            Behaviour::RunFarBeyond
            | Behaviour::ManyResults
            | Behaviour::CostlyRows
            | Behaviour::FeedsThatDiffer
            | Behaviour::JudgedByMany
            | Behaviour::LongVocabulary
            | Behaviour::HoardVocabularies
            | Behaviour::WideBinding
            | Behaviour::RepeatedColumns
            | Behaviour::HoardReads => beyond::attempt(training, behaviour)?,
            _ => {}
        }
        let task = training.task();
        let graph = graph(task.features.len() as u32, behaviour);
        let session = Session::create(Program::compile(&graph)?, training.seed())?;
        if behaviour == Behaviour::HoardSessions {
            let mut taken = vec![session];
            loop {
                taken.push(Session::create(Program::compile(&graph)?, training.seed())?);
            }
        }
        weights(&session, behaviour)?;
        if behaviour != Behaviour::NotBound {
            let mut features: Vec<String> = task
                .features
                .iter()
                .map(|field| field.name.clone())
                .collect();
            if behaviour == Behaviour::UnknownColumn {
                features = features
                    .into_iter()
                    .map(|name| format!("no {name}"))
                    .collect();
            }
            let target = match task.kind {
                TaskKind::Regression => Encoding::Target(target(&task)?.to_owned()),
                _ => Encoding::Labels(Category {
                    column: target(&task)?.to_owned(),
                    vocabulary: task.classes,
                }),
            };
            session.bind(&[bind("x", Encoding::Numbers(features)), bind("y", target)])?;
        }
        session.train(
            training.training_rows(),
            training.validation_rows(),
            plan(behaviour),
        )?;
        let state = match behaviour {
            Behaviour::LongState => vec![0; 256 << 20],
            Behaviour::PersonInModel => std::iter::once(behaviour as u8)
                .chain(PERSON.bytes())
                .collect::<Vec<u8>>(),
            _ => vec![behaviour as u8],
        };
        Ok(Trained::new(state, session))
    }

    fn predict(model: &Model, rows: Batch) -> Result<Batch, Failure> {
        let state = model.state();
        let is = |behaviour: Behaviour| state.first() == Some(&(behaviour as u8));
        let count = rows.rows() as usize;
        if is(Behaviour::SpinInPredict) {
            spin();
        }
        if is(Behaviour::TrapInPredict) {
            trap();
        }
        if is(Behaviour::UnknownEntry) {
            model.session()?.infer("no such entry", rows)?;
            return Err(Failure::internal("an entry that does not exist was run"));
        }
        if is(Behaviour::SetInPredict) {
            let other = Tensor::from_f32(&[1], &[7.0])?;
            model.session()?.set("bias", other)?;
            return Err(Failure::internal("a prediction was let change the model"));
        }
        let turns = is(Behaviour::Turncoat) && count == 13;
        if is(Behaviour::CompileInPredict) || turns {
            let program = Program::compile(&graph(1, Behaviour::Behave))?;
            Session::create(program, 7)?;
        }
        let results = model.session()?.infer("predict", rows)?;
        let mut positive: Vec<f64> = results
            .first()
            .map(|result| result.value.values())
            .unwrap_or_default()
            .into_iter()
            .map(f64::from)
            .collect();
        if is(Behaviour::PredictFewerRows) {
            positive.truncate(count.saturating_sub(1));
        } else if is(Behaviour::PredictMoreRows) {
            positive.push(0.5);
        } else if is(Behaviour::PredictNan) {
            positive.fill(f64::NAN);
        } else if is(Behaviour::PredictMoreThanOne) {
            positive.fill(7.0);
        }
        let task = model.task();
        if is(Behaviour::PredictOtherColumns) {
            return Rows::new().float64("something", positive).into_batch();
        }
        match task.classes.as_slice() {
            [no, yes] => {
                let negative: Vec<f64> = positive.iter().map(|positive| 1.0 - positive).collect();
                Rows::new()
                    .float64(&format!("probability:{no}"), negative)
                    .float64(&format!("probability:{yes}"), positive)
                    .into_batch()
            }
            _ => Rows::new().float64("prediction", positive).into_batch(),
        }
    }
}

sandcast_sdk::export_adapter!(Hostile);
