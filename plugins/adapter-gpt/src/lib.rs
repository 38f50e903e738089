//! Learns what comes next in a text by a decoder transformer, and writes on.
//!
//! Texts become one stream of tokens with the end of a text between them; training takes stretches
//! of it, each as long as the context. The tokenizer is learnt from the training texts and kept in
//! the state of the model.

use sandcast_sdk::columns::Rows;
use sandcast_sdk::graph::{Cosine, Feed, Program, Schedule, Tensor, TrainPlan, feed};
use sandcast_sdk::{
    Adapter, Batch, Column, Declaration, Description, Failure, GenerationOptions, Model, Session,
    Task, TaskKind, Trained, Training,
};
use serde::{Deserialize, Serialize};

use crate::corpus::Windows;
use crate::tokenizer::Tokenizer;

mod corpus;
mod hyperparameters;
mod network;
mod score;
mod tokenizer;
mod write;

pub use crate::hyperparameters::{FeedForward, Hyperparameters, Norm, Positions, TokenizerKind};

/// A decoder transformer over tokens.
#[derive(Debug)]
pub struct GptAdapter;

/// The layout of the state.
const VERSION: u32 = 1;

/// What is kept beside the weights.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    tokenizer: Tokenizer,
    hyperparameters: Hyperparameters,
}

impl State {
    fn of(model: &Model) -> Result<Self, Failure> {
        let state: Self = serde_json::from_slice(&model.state()).map_err(|error| {
            Failure::invalid_input(format!("the state of the model is not one: {error}"))
        })?;
        if state.version != VERSION {
            return Err(Failure::unsupported(format!(
                "the state of the model is of version {}, and this adapter reads {VERSION}",
                state.version
            )));
        }
        state.tokenizer.check()?;
        Ok(state)
    }

    fn context(&self) -> usize {
        self.hyperparameters.context as usize
    }
}

impl Adapter for GptAdapter {
    type Hyperparameters = Hyperparameters;

    fn describe() -> Description {
        Description {
            name: "decoder transformer".into(),
            tasks: vec![TaskKind::TextGeneration],
            hyperparameters: Hyperparameters::json_schema(),
        }
    }

    fn declare(
        task: &Task,
        _cardinalities: &[u32],
        hyperparameters: Hyperparameters,
    ) -> Result<Declaration, Failure> {
        hyperparameters.check()?;
        corpus::text_column(task)?;
        // The texts may have fewer tokens.
        Ok(network::declare(hyperparameters.vocabulary_size, None, &hyperparameters).into())
    }

    fn train(training: &Training, hyperparameters: Hyperparameters) -> Result<Trained, Failure> {
        hyperparameters.check()?;
        let task = training.task();
        let column = corpus::text_column(&task)?;
        let texts = corpus::read(&training.training_rows(), column)?;
        let tokenizer = Tokenizer::learn(texts.iter().map(String::as_str), &hyperparameters);
        let mut encoder = tokenizer.encoder();
        let stream = corpus::stream(texts.iter().map(String::as_str), &mut encoder);
        drop(texts);
        let context = hyperparameters.context;
        let Some(windows) = Windows::to_learn(stream.len(), context) else {
            return Err(Failure::invalid_input(format!(
                "the texts have {} tokens, and one stretch with a context of {context} needs {}; \
                 lower `context` or give more text",
                stream.len(),
                u64::from(context) + 1
            )));
        };
        let judged = match training.validation_rows() {
            Some(rows) => {
                let texts = corpus::read(&rows, column)?;
                corpus::stream(texts.iter().map(String::as_str), &mut encoder)
            }
            None => Vec::new(),
        };
        let most = hyperparameters.validation_windows;
        let judging = Windows::to_judge(judged.len(), context, most);
        if judging.is_none() && hyperparameters.patience.is_some() {
            sandcast_sdk::log::warn!(
                "the validation texts have {} tokens, too few to stop early by",
                judged.len()
            );
        }
        let validation = match judging {
            Some(windows) => Some(feeds(&judged, context, windows)?),
            None => None,
        };

        let graph = network::declare(
            tokenizer.vocabulary(),
            tokenizer.unwritable(),
            &hyperparameters,
        );
        let session = Session::create(Program::compile(&graph)?, training.seed())?;
        session.train_on(
            feeds(&stream, context, windows)?,
            validation,
            plan(&hyperparameters, windows.rows),
        )?;
        let state = State {
            version: VERSION,
            tokenizer,
            hyperparameters,
        };
        let state =
            serde_json::to_vec(&state).map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Trained::new(state, session))
    }

    fn predict(model: &Model, rows: Batch) -> Result<Batch, Failure> {
        let state = State::of(model)?;
        let column = texts(&rows)?;
        let texts = strings(&column)?;
        let scores = score::score(&model.session()?, &state.tokenizer, state.context(), &texts)?;
        let mean = |score: &score::Score| match score.tokens {
            0 => 0.0,
            tokens => score.nats / tokens as f64,
        };
        Rows::new()
            .float64("loss", scores.iter().map(mean).collect::<Vec<f64>>())
            .int64(
                "tokens",
                scores
                    .iter()
                    .map(|score| score.tokens as i64)
                    .collect::<Vec<i64>>(),
            )
            .into_batch()
    }

    fn generate(
        model: &Model,
        prompts: Batch,
        options: GenerationOptions,
    ) -> Result<Batch, Failure> {
        let state = State::of(model)?;
        let column = texts(&prompts)?;
        let prompts = strings(&column)?;
        let written = write::write(model, &state.tokenizer, state.context(), &prompts, &options)?;
        let finish = |stopped: bool| if stopped { "stop" } else { "length" };
        Rows::new()
            .utf8("text", written.iter().map(|one| Some(one.text.as_str())))
            .int64(
                "tokens",
                written
                    .iter()
                    .map(|one| i64::from(one.tokens))
                    .collect::<Vec<i64>>(),
            )
            .utf8(
                "finish",
                written.iter().map(|one| Some(finish(one.stopped))),
            )
            .into_batch()
    }
}

/// The one column of a batch.
fn texts(rows: &Batch) -> Result<Column, Failure> {
    rows.column(0)
}

/// Its texts; a null is an empty one.
fn strings(column: &Column) -> Result<Vec<&str>, Failure> {
    let values = column
        .utf8()
        .ok_or_else(|| Failure::invalid_input("the rows hold no texts"))?;
    Ok(values.iter().map(Option::unwrap_or_default).collect())
}

/// A stream of tokens as the inputs of the network.
fn feeds(stream: &[i32], context: u32, windows: Windows) -> Result<Vec<Feed>, Failure> {
    let last = stream.len().saturating_sub(1);
    let tokens = stream.get(..last).unwrap_or_default();
    let labels = stream.get(1..).unwrap_or_default();
    let positions: Vec<i32> = (0..context as i32).collect();
    Ok(vec![
        feed("tokens", Tensor::windows(tokens, context, windows.stride)?),
        feed("positions", Tensor::repeated(&positions, windows.rows)?),
        feed("labels", Tensor::windows(labels, context, windows.stride)?),
    ])
}

fn plan(hyperparameters: &Hyperparameters, rows: u32) -> TrainPlan {
    let batch = hyperparameters.batch_rows;
    let interval = hyperparameters
        .validation_interval
        .min(hyperparameters.steps);
    let of_epoch = rows.min(interval.saturating_mul(batch));
    let steps_of_epoch = of_epoch.div_ceil(batch).max(1);
    TrainPlan {
        epochs: hyperparameters.steps.div_ceil(steps_of_epoch),
        epoch_rows: Some(of_epoch.max(1)),
        batch_rows: batch,
        learning_rate: hyperparameters.learning_rate,
        schedule: Schedule::Cosine(Cosine {
            warmup_steps: hyperparameters.warmup_steps,
            floor: hyperparameters.learning_rate_floor,
        }),
        clip_norm: hyperparameters.clip_norm,
        patience: hyperparameters.patience,
        shuffle: true,
        accumulate_steps: 1,
    }
}

sandcast_sdk::export_adapter!(GptAdapter);

#[cfg(test)]
mod tests {
    use super::*;
    use sandcast_sdk::Kind;
    use sandcast_sdk::columns::field;

    fn task(kind: TaskKind, features: Vec<sandcast_sdk::Field>) -> Task {
        Task {
            kind,
            features,
            target: None,
            classes: Vec::new(),
            weight: None,
        }
    }

    #[test]
    fn only_one_column_of_texts_is_learnt_from() {
        let declare = |kind, features| {
            GptAdapter::declare(&task(kind, features), &[], Hyperparameters::default())
        };
        let text = || field("text", Kind::Utf8, false);
        assert!(declare(TaskKind::TextGeneration, vec![text()]).is_ok());
        for (kind, features) in [
            (TaskKind::Regression, vec![text()]),
            (TaskKind::TextGeneration, vec![]),
            (TaskKind::TextGeneration, vec![text(), text()]),
            (
                TaskKind::TextGeneration,
                vec![field("n", Kind::Int64, false)],
            ),
        ] {
            assert!(declare(kind, features).is_err());
        }
    }

    #[test]
    fn steps_are_cut_into_intervals() {
        let hyperparameters = Hyperparameters::default();
        let many = plan(&hyperparameters, 1_000_000);
        assert_eq!((many.epochs, many.epoch_rows), (8, Some(4_000)));
        let few = plan(&hyperparameters, 100);
        assert_eq!((few.epochs, few.epoch_rows), (286, Some(100)));
        let short = Hyperparameters {
            steps: 10,
            ..hyperparameters
        };
        let short = plan(&short, 1_000_000);
        assert_eq!((short.epochs, short.epoch_rows), (1, Some(160)));
    }
}
