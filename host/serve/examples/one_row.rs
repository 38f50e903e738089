//! What a one-row prediction costs through HTTP, against an empty axum handler.
//!
//! ```text
//! cargo run -p sandcast -p sandcast-serve --example one_row -- <state folder> <model> <request.json>
//! ```
//!
//! Both servers run in this process on sockets of their own, and are asked in turns by the same
//! client over kept-alive connections, so that whatever slows the machine slows both. The request
//! is a body for `/v2/models/<model>/infer`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use sandcast_factory::Workspace;
use sandcast_serve::{ServeConfig, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ROUNDS: usize = 20;
const REQUESTS: usize = 200;
const CONNECTIONS: [usize; 2] = [1, 8];

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [state, model, request] = arguments.as_slice() else {
        eprintln!("give a state folder, a model and a file with a request");
        return ExitCode::from(2);
    };
    match measure(Path::new(state), model, Path::new(request)).await {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(state: &Path, model: &str, request: &Path) -> Result<Vec<String>, Failure> {
    let body = std::fs::read(request)?;
    let config = ServeConfig {
        address: "127.0.0.1:0".parse()?,
        models: vec![model.parse()?],
        ..ServeConfig::default()
    };
    let server = Server::open(Arc::new(Workspace::open(state)?), config).await?;
    let predicting = Target::new(
        server.address(),
        &format!("/v2/models/{model}/infer"),
        &body,
    );
    let running = tokio::spawn(server.run(std::future::pending()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let empty = Target::new(listener.local_addr()?, "/", &body);
    let nothing = Router::new().route("/", post(|_body: axum::body::Bytes| async {}));
    let doing_nothing = tokio::spawn(async move { axum::serve(listener, nothing).await });

    let mut lines = Vec::new();
    for connections in CONNECTIONS {
        let (mut predictions, mut nothings) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let (one, other) = (
                empty.ask(connections).await?,
                predicting.ask(connections).await?,
            );
            // The first round warms up.
            if round > 0 {
                nothings.extend(one);
                predictions.extend(other);
            }
        }
        let (nothing, prediction) = (Quantiles::of(nothings), Quantiles::of(predictions));
        lines.push(format!(
            "{connections} connections: empty handler {nothing}; prediction {prediction}; median \
             {:.2} times the empty handler's, {:.0} µs on top",
            prediction.median.as_secs_f64() / nothing.median.as_secs_f64(),
            (prediction.median.as_secs_f64() - nothing.median.as_secs_f64()) * 1e6,
        ));
    }
    running.abort();
    doing_nothing.abort();
    Ok(lines)
}

/// A server and the request that is sent to it.
struct Target {
    address: SocketAddr,
    request: Arc<Vec<u8>>,
}

impl Target {
    fn new(address: SocketAddr, path: &str, body: &[u8]) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self {
            address,
            request: Arc::new([head.as_bytes(), body].concat()),
        }
    }

    /// Sends requests over several connections at a time, and says how long each took.
    async fn ask(&self, connections: usize) -> Result<Vec<Duration>, Failure> {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let (address, request) = (self.address, Arc::clone(&self.request));
            tasks.spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let mut durations = Vec::with_capacity(REQUESTS / connections);
                for _ in 0..REQUESTS / connections {
                    let begun = Instant::now();
                    stream.write_all(&request).await?;
                    read_answer(&mut stream).await?;
                    durations.push(begun.elapsed());
                }
                Ok::<_, Failure>(durations)
            });
        }
        let mut all = Vec::with_capacity(REQUESTS);
        while let Some(durations) = tasks.join_next().await {
            all.extend(durations??);
        }
        Ok(all)
    }
}

/// Reads one answer with a content length, and insists on its status.
async fn read_answer(stream: &mut TcpStream) -> Result<(), Failure> {
    let mut answer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(String::from_utf8_lossy(&answer).into_owned().into());
        }
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next());
        let length: usize = length.unwrap_or("0").parse()?;
        while answer.len() < end + 4 + length {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
        return Ok(());
    }
}

struct Quantiles {
    median: Duration,
    p99: Duration,
}

impl Quantiles {
    fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |share: f64| {
            let last = durations.len().saturating_sub(1);
            durations
                .get((last as f64 * share) as usize)
                .copied()
                .unwrap_or_default()
        };
        Self {
            median: at(0.5),
            p99: at(0.99),
        }
    }
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        write!(
            formatter,
            "{:.0} µs (p99 {:.0})",
            micros(self.median),
            micros(self.p99)
        )
    }
}
