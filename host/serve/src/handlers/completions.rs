use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Extensions, HeaderMap};
use sandcast_access::Action;
use sandcast_sandbox::{GenerationOptions, TaskKind};
use serde::{Deserialize, Serialize};

use super::infer::{
    Failure, count_failure, count_request, observe_prediction, read_body, take_place, take_turn,
};
use crate::app::App;
use crate::budget::Caller;
use crate::error::{ApiError, FailureCause, PredictError};
use crate::models::Loaded;
use crate::telemetry::{Raised, UNKNOWN_MODEL};

/// The most texts of one request.
const MAX_TEXTS: usize = 16;

/// The most tokens of one text.
const MAX_TOKENS: u32 = 4_096;

/// What is asked for, in the shape of OpenAI's completions. Keys that would change the answer and
/// are not understood are refused, not passed over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompletionRequest {
    /// name, name@alias or name@version
    model: String,
    prompt: OneOrMore,
    #[serde(default = "sixteen")]
    max_tokens: u32,
    #[serde(default = "one")]
    temperature: f32,
    top_p: Option<f32>,
    /// Not OpenAI's.
    top_k: Option<u32>,
    n: Option<usize>,
    stop: Option<OneOrMore>,
    seed: Option<u64>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    echo: bool,
    /// Whom it is for; nothing depends on it.
    #[serde(default, rename = "user")]
    _user: Option<String>,
}

impl CompletionRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map_err(|error| {
            ApiError::bad_request(format!("the request is not a completion: {error}"))
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::More(texts) => texts,
        }
    }
}

fn sixteen() -> u32 {
    16
}

fn one() -> f32 {
    1.0
}

/// What was written.
#[derive(Debug, Serialize)]
pub(crate) struct CompletionResponse {
    id: String,
    object: &'static str,
    created: i64,
    model: String,
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Choice {
    index: usize,
    text: String,
    finish_reason: String,
    logprobs: Option<()>,
}

#[derive(Debug, Serialize)]
struct Usage {
    completion_tokens: u64,
}

/// `POST /v1/completions`.
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CompletionResponse>, ApiError> {
    let _in_flight = Raised::new(&app.telemetry.in_flight);
    let begun = Instant::now();
    let timeout = app.config.request_timeout;
    let unknown = |error: ApiError| {
        count_request(&app, UNKNOWN_MODEL, "", error.status);
        error
    };
    // Before a place is taken: nobody takes more of them than they may have requests under way.
    let counted = app
        .begin(extensions.get::<Arc<Caller>>())
        .map_err(unknown)?;
    // Before the body is read: what waits is held in memory.
    let _place = take_place(&app).map_err(unknown)?;
    let reading = tokio::time::timeout(timeout, read_body(&app, &headers, body)).await;
    let body = reading
        .unwrap_or_else(|_| Err(ApiError::slow_body(timeout)))
        .map_err(unknown)?;
    let request = CompletionRequest::parse(&body).map_err(unknown)?;
    let (name, version) = match request.model.split_once('@') {
        None => (request.model.as_str(), None),
        Some((name, version)) => (name, Some(version)),
    };
    let loaded = app.models.find(name, version).map_err(unknown)?;
    let caller = app
        .admit(&headers, Action::Generate, name)
        .await
        .map_err(unknown)?;
    let mut record = app.served.record(&loaded, caller.as_ref(), counted);
    let left = timeout.saturating_sub(begun.elapsed());
    let answered = tokio::time::timeout(left, answer(&app, &loaded, request)).await;
    let answered = answered.unwrap_or_else(|_| Err(late(timeout).into()));
    let answered = answered.map_err(|failure| count_failure(&app, &loaded, failure));
    let status = answered
        .as_ref()
        .map_or_else(|error| error.status, |_| axum::http::StatusCode::OK);
    let version = loaded.model.version.to_string();
    count_request(&app, &loaded.model.name, &version, status);
    answered.map(|response| {
        record.answered(response.choices.len() as u64);
        Json(response)
    })
}

/// The body and the answer together took too long.
fn late(timeout: Duration) -> PredictError {
    PredictError {
        cause: FailureCause::Timeout,
        message: format!("no answer within {timeout:?}; ask for fewer tokens"),
    }
}

async fn answer(
    app: &App,
    loaded: &Loaded,
    request: CompletionRequest,
) -> Result<CompletionResponse, Failure> {
    let refuse = |message: String| Err(Failure::from(ApiError::bad_request(message)));
    let model = &loaded.model;
    if model.task.kind != TaskKind::TextGeneration {
        return refuse(format!(
            "`{}` was trained for {}, so it does not write; ask /v2/models/{}/infer",
            model.name,
            model.task.kind.name(),
            model.name
        ));
    }
    if request.stream {
        return refuse("`stream` is not understood; leave it out".into());
    }
    let copies = request.n.unwrap_or(1);
    let prompts = request.prompt.into_vec();
    let texts = prompts.len().saturating_mul(copies);
    if !(1..=MAX_TEXTS).contains(&texts) {
        return refuse(format!(
            "{texts} texts are asked for; ask for 1 to {MAX_TEXTS} in a request"
        ));
    }
    if request.max_tokens > MAX_TOKENS {
        return refuse(format!(
            "`max_tokens` is {}; make it at most {MAX_TOKENS}",
            request.max_tokens
        ));
    }
    let options = GenerationOptions {
        maximum_tokens: request.max_tokens,
        temperature: request.temperature,
        top_k: request.top_k,
        top_p: request.top_p,
        stop: request.stop.map(OneOrMore::into_vec).unwrap_or_default(),
        seed: request.seed.unwrap_or_else(draw_seed),
    };
    if let Err(what) = options.check() {
        return refuse(what);
    }
    let prompts: Vec<String> = prompts
        .iter()
        .flat_map(|prompt| std::iter::repeat_n(prompt.clone(), copies))
        .collect();
    let queueing = Instant::now();
    let turn = take_turn(app).await?;
    loaded.counters.queued.add(queueing.elapsed());
    let writing = Instant::now();
    let written = {
        let _instance = Raised::new(&app.telemetry.instances);
        model.predictor.generate(&prompts, &options).await
    };
    drop(turn);
    observe_prediction(app, loaded, writing.elapsed());
    let written = written?;
    let now = jiff::Timestamp::now();
    Ok(CompletionResponse {
        id: format!("cmpl-{:016x}", draw_seed()),
        object: "text_completion",
        created: now.as_second(),
        model: format!("{}@{}", model.name, model.version),
        usage: Usage {
            completion_tokens: written.iter().map(|one| one.tokens).sum(),
        },
        choices: prompts
            .into_iter()
            .zip(written)
            .enumerate()
            .map(|(index, (prompt, written))| Choice {
                index,
                text: if request.echo {
                    prompt + &written.text
                } else {
                    written.text
                },
                finish_reason: written.finish,
                logprobs: None,
            })
            .collect(),
    })
}

/// Another number each time.
fn draw_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(jiff::Timestamp::now().as_nanosecond())
}
