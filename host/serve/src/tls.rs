//! TLS: certificates from files, and from them again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::ServeError;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Where the certificate of a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and an authority, in PEM.
    pub certificates: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

/// What connections are secured with.
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) fn open(files: TlsFiles) -> Result<Self, ServeError> {
        let current = RwLock::new(read(&files)?);
        Ok(Self { files, current })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }

    fn changed(&self) -> Option<[SystemTime; 2]> {
        let time = |path: &Path| std::fs::metadata(path).and_then(|it| it.modified()).ok();
        Some([time(&self.files.certificates)?, time(&self.files.key)?])
    }

    /// Reads the files again whenever they change, until dropped. Connections that are open keep what
    /// they have; files that make no sense change nothing.
    pub(crate) async fn keep_reading(self: Arc<Self>) {
        let mut seen = self.changed();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.changed();
            if now == seen || now.is_none() {
                continue;
            }
            match read(&self.files) {
                Ok(config) => {
                    let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                    *current = config;
                    tracing::info!("the certificate was read again");
                    seen = now;
                }
                Err(error) => {
                    tracing::warn!(%error, "the certificate changed and is no good; the one before it stays");
                }
            }
        }
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, ServeError> {
    let wrong = |path: &Path, what: String| ServeError::Tls {
        path: path.to_path_buf(),
        what,
    };
    let path = &files.certificates;
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(path, error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong(path, "it holds no certificate".to_owned()));
    }
    let path = &files.key;
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(path, error.to_string()))?;
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(path, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| wrong(path, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
