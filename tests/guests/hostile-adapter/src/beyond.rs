//! More than was declared, and more than there is room for. Whatever comes of it, it is a failure.

use sandcast_sdk::graph::{
    Category, Encoding, Float, Graph, GraphBuilder, Initializer, Program, Reduction, Session,
    Tensor, bind, feed,
};
use sandcast_sdk::{Failure, Training};

use crate::{Behaviour, decoder, graph, plan};

/// Columns that a binding may name.
const MOST_COLUMNS: usize = 65_536;

/// A program that declares one row, of one number.
fn declared(result: impl for<'g> FnOnce(&'g GraphBuilder, Row<'g>) -> Row<'g>) -> Graph {
    let g = GraphBuilder::new();
    let rows = g.symbol("rows", 1);
    let x = g.input_i32("x", [rows, 1.into()]).cast::<Float>();
    g.entry("predict", &[("y", result(&g, x).into())]);
    g.finish()
}

type Row<'g> = sandcast_sdk::graph::Node<'g>;

/// Many results for each row.
fn wide() -> Graph {
    declared(|g, x| x.matmul(g.parameter("wide", &[1, 1 << 14], Initializer::Ones)))
}

/// One result for each row, after much work.
fn deep() -> Graph {
    declared(|g, x| {
        let first = g.parameter("first", &[1, 256], Initializer::GlorotUniform);
        let again = g.parameter("again", &[256, 256], Initializer::GlorotUniform);
        let worked = (0..12).fold(x.matmul(first), |worked, _| worked.matmul(again).relu());
        worked.reduce(Reduction::Sum, &[1], false)
    })
}

/// Runs a program over so many rows that are all the same.
fn run(graph: &Graph, rows: u32) -> Result<(), Failure> {
    let session = Session::create(Program::compile(graph)?, 1)?;
    let x = Tensor::repeated(&[1], rows)?;
    let run = session.run("predict", vec![feed("x", x)]);
    run.map(|_| ()).map_err(without_figures)
}

/// A refusal without its figures, which are those of the machine.
fn without_figures(failure: Failure) -> Failure {
    Failure {
        message: "it was refused".into(),
        ..failure
    }
}

/// Words of so many bytes.
fn words(count: usize, bytes: usize) -> Encoding {
    Encoding::Labels(Category {
        column: "y".into(),
        vocabulary: (0..count).map(|word| format!("{word:0bytes$}")).collect(),
    })
}

pub(crate) fn attempt(training: &Training, behaviour: Behaviour) -> Result<(), Failure> {
    let line = graph(1, behaviour);
    let linear = || Program::compile(&line);
    match behaviour {
        Behaviour::RunFarBeyond => run(&wide(), u32::MAX)?,
        Behaviour::ManyResults => run(&wide(), 1 << 20)?,
        Behaviour::CostlyRows => run(&deep(), 1 << 22)?,
        Behaviour::FeedsThatDiffer => {
            let session = Session::create(Program::compile(&decoder(behaviour))?, 1)?;
            let fed = |rows| Tensor::from_i32(&[rows, 2], &vec![1; rows as usize * 2]);
            let feeds = vec![feed("tokens", fed(3)?), feed("labels", fed(5)?)];
            session.run("score", feeds)?;
        }
        Behaviour::JudgedByMany => {
            let session = Session::create(Program::compile(&decoder(behaviour))?, 1)?;
            let both = |rows| {
                let same = || Tensor::repeated(&[1; 16], rows);
                Ok::<_, Failure>(vec![feed("tokens", same()?), feed("labels", same()?)])
            };
            let trained = session.train_on(both(64)?, Some(both(u32::MAX)?), plan(behaviour));
            trained.map(|_| ()).map_err(without_figures)?;
        }
        Behaviour::LongVocabulary => {
            let session = Session::create(linear()?, 1)?;
            session.bind(&[bind("y", words(200_000, 100))])?;
        }
        Behaviour::HoardVocabularies => {
            let mut taken = Vec::new();
            loop {
                let session = Session::create(linear()?, 1)?;
                session.bind(&[bind("y", words(100_000, 8))])?;
                taken.push(session);
            }
        }
        Behaviour::WideBinding => {
            let session = Session::create(linear()?, 1)?;
            let again = Encoding::Numbers(vec!["x".into(); MOST_COLUMNS]);
            let target = Encoding::Target("y".into());
            session.bind(&[bind("x", again), bind("y", target)])?;
            let trained = session.train(training.training_rows(), None, plan(behaviour));
            trained.map(|_| ()).map_err(without_figures)?;
        }
        Behaviour::RepeatedColumns => {
            let again = vec!["x".to_owned(); 100_000];
            training.training_rows().read(0, &again)?;
        }
        Behaviour::HoardReads => {
            let rows = training.training_rows();
            let mut taken = Vec::new();
            loop {
                taken.push(rows.read(0, &["x".to_owned(), "y".to_owned()])?);
            }
        }
        _ => {}
    }
    Err(Failure::internal("it was done"))
}
