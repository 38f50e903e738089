//! The listener: accepts, bounds, drains.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sandcast_access::Gate;
use sandcast_audit::{AuditLog, Event};
use sandcast_factory::Workspace;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::app::{App, routes};
use crate::config::ServeConfig;
use crate::error::ServeError;
use crate::models::ModelSource;
use crate::patience::Impatient;
use crate::registry::RegistrySource;
use crate::reload::keep_reloading;
use crate::served::keep_writing;
use crate::standing::keep_looking;
use crate::telemetry::Raised;
use crate::tls::{Tls, TlsFiles};

/// A server that has loaded its models and listens, but does not answer yet.
pub struct Server {
    app: Arc<App>,
    audit: AuditLog,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
}

/// What stands between a server and whoever reaches it.
#[derive(Default)]
pub struct Protection {
    /// Decides who may ask, where access is set up; one of a state where it is not is as good as none.
    pub gate: Option<Arc<Gate>>,
    /// Whether access has been set up by now, where nobody decides: then nothing is answered any more.
    pub set_up: Option<SetUp>,
    /// The certificate that connections are secured with.
    pub tls: Option<TlsFiles>,
    /// Whether others may reach it without one of these.
    pub insecure: bool,
}

/// Looks whether access is set up. It is asked for each request, so it is quick.
pub type SetUp = Box<dyn Fn() -> bool + Send + Sync>;

impl Protection {
    /// What is missing for an address that others can reach.
    fn missing(&self) -> Option<&'static str> {
        match (&self.gate, &self.tls) {
            (Some(_), Some(_)) => None,
            (None, Some(_)) => Some("nobody who asks for a token"),
            (Some(_), None) => Some("no TLS, so that tokens could be read on the way"),
            (None, None) => Some("neither TLS nor anybody who asks for a token"),
        }
    }
}

/// What a server did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ServeSummary {
    /// Where it listened.
    pub address: SocketAddr,
    /// Inference requests to its models.
    pub predictions: u64,
    /// Rows that were predicted.
    pub rows: u64,
    /// Inference requests that failed.
    pub failures: u64,
    /// Connections that were cut because they took longer than the drain timeout.
    pub cut_connections: usize,
    /// How long it answered, in seconds.
    pub seconds: f64,
}

impl Server {
    /// Loads models of a workspace and listens.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn open(workspace: Arc<Workspace>, config: ServeConfig) -> Result<Self, ServeError> {
        let audit = workspace.audit().clone();
        Self::bind(Arc::new(RegistrySource::new(workspace)), audit, config).await
    }

    /// Loads the models of any source and listens.
    ///
    /// # Errors
    /// When there are no models, one cannot be loaded, or the address cannot be listened on.
    pub async fn bind(
        source: Arc<dyn ModelSource>,
        audit: AuditLog,
        config: ServeConfig,
    ) -> Result<Self, ServeError> {
        let protection = Protection::default();
        Self::bind_protected(source, audit, config, protection).await
    }

    /// The same with TLS, and for those who may ask.
    ///
    /// # Errors
    /// As [`Server::bind`], and when others could reach it and it would not know who they are, or the
    /// certificate cannot be used.
    pub async fn bind_protected(
        source: Arc<dyn ModelSource>,
        audit: AuditLog,
        config: ServeConfig,
        mut protection: Protection,
    ) -> Result<Self, ServeError> {
        protection.gate = protection.gate.filter(|gate| gate.store().is_some());
        let address = config.address;
        if let Some(missing) = protection.missing()
            && !address.ip().is_loopback()
            && !protection.insecure
        {
            return Err(ServeError::Exposed { address, missing });
        }
        let tls = protection.tls.map(Tls::open).transpose()?.map(Arc::new);
        let is_open = protection.gate.is_none();
        let app = App::load(source, config, protection.gate, protection.set_up).await?;
        if app.models.all().is_empty() {
            return Err(ServeError::NoModels);
        }
        let bind = |source| ServeError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        if !address.ip().is_loopback() && is_open {
            tracing::warn!(%address, "anybody who reaches this address can use the models");
        }
        Ok(Self {
            app,
            audit,
            listener,
            address,
            tls,
        })
    }

    /// Where it listens, the port filled in.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it serves, as `name@version`.
    pub fn models(&self) -> Vec<String> {
        self.app.models.labels()
    }

    /// Answers until `shutdown` resolves, then lets requests under way finish within the drain
    /// timeout.
    ///
    /// # Errors
    /// When the audit log cannot be written at the start or at the end.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<ServeSummary, ServeError> {
        let Self {
            app,
            audit,
            listener,
            address,
            tls,
        } = self;
        let begun = Instant::now();
        let models = app.models.labels();
        append(
            &audit,
            Event::ServeStarted {
                models,
                address: address.to_string(),
            },
        )
        .await?;
        tracing::info!(%address, models = ?app.models.labels(), "serving");
        // Aborted when dropped, so that nothing outlives the server.
        let mut chores = JoinSet::new();
        chores.spawn(keep_reloading(Arc::clone(&app)));
        chores.spawn(keep_writing(Arc::clone(&app), audit.clone()));
        chores.spawn(keep_looking(Arc::clone(&app)));
        if let Some(tls) = &tls {
            chores.spawn(Arc::clone(tls).keep_reading());
        }

        let stop = CancellationToken::new();
        let mut connections = accept_until(shutdown, &app, listener, tls, &stop).await;
        app.draining.store(true, Ordering::Relaxed);
        stop.cancel();
        let cut_connections = drain(&mut connections, app.config.drain_timeout).await;
        chores.shutdown().await;

        let total = app.served.total();
        let last = Arc::clone(&app);
        let log = audit.clone();
        // A panic in there would be a bug of ours; the stop below still gets its line.
        if let Ok(written) = tokio::task::spawn_blocking(move || last.write_sums(&log, true)).await
        {
            written?;
        }
        append(
            &audit,
            Event::ServeStopped {
                predictions: total.requests,
            },
        )
        .await?;
        Ok(ServeSummary {
            address,
            predictions: total.requests,
            rows: total.rows,
            failures: total.failures,
            cut_connections,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

/// Serves the models of a workspace until `shutdown` resolves; see [`Server::run`]. To know the
/// address before it answers, use [`Server::open`].
///
/// # Errors
/// As [`Server::open`] and [`Server::run`].
pub async fn serve(
    workspace: Arc<Workspace>,
    config: ServeConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<ServeSummary, ServeError> {
    Server::open(workspace, config).await?.run(shutdown).await
}

/// Appends off the runtime's threads: the log locks a file and may push it to the disk.
async fn append(audit: &AuditLog, event: Event) -> Result<(), ServeError> {
    let audit = audit.clone();
    match tokio::task::spawn_blocking(move || audit.append(event)).await {
        Ok(appended) => appended.map(drop).map_err(ServeError::from),
        // Only where the runtime is going down.
        Err(_) => Ok(()),
    }
}

/// Takes connections until told to stop. The listener is closed when this returns.
async fn accept_until(
    shutdown: impl Future<Output = ()> + Send,
    app: &Arc<App>,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let router = routes(Arc::clone(app));
    let limit = app.config.max_connections.get().min(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(limit));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => return connections,
            // Ended connections are taken off the set as they come.
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (place, accepted) = accepted => match (place, accepted) {
                (Ok(place), Ok((stream, _))) => {
                    let acceptor = tls.as_ref().map(|tls| tls.acceptor());
                    let (router, app, stop) = (router.clone(), Arc::clone(app), stop.clone());
                    connections.spawn(greet(stream, acceptor, router, app, stop, place));
                }
                (_, Err(error)) => {
                    // Out of file descriptors, most likely: time brings some back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                (Err(_), Ok(_)) => {}
            }
        }
    }
}

async fn greet(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    app: Arc<App>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let _open = Raised::new(&app.telemetry.connections);
    // One-row answers are small; waiting to fill a segment would cost 40 ms.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else {
        return answer(stream, router, &app, stop).await;
    };
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(app.config.header_timeout, acceptor.accept(stream)) => greeted,
        () = stop.cancelled() => return,
    };
    match greeted {
        Ok(Ok(stream)) => answer(stream, router, &app, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection was not secured"),
        Err(_) => tracing::debug!("a connection took too long to be secured"),
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
    app: &App,
    stop: CancellationToken,
) {
    let stream = Impatient::new(stream, app.config.write_timeout);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.config.header_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Waits for connections to end, and cuts those that take too long.
async fn drain(connections: &mut JoinSet<()>, timeout: Duration) -> usize {
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(timeout, all_ended).await.is_ok() {
        return 0;
    }
    let cut = connections.len();
    tracing::warn!(
        cut,
        ?timeout,
        "connections did not end in time and were cut"
    );
    connections.shutdown().await;
    cut
}

/// Resolves at ctrl-c or, on Unix, at SIGTERM.
pub async fn shutdown_signal() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let terminated = async {
            match signal(SignalKind::terminate()) {
                Ok(mut terminate) => {
                    terminate.recv().await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = interrupted => {}
            () = terminated => {}
        }
    }
    #[cfg(not(unix))]
    interrupted.await;
}
