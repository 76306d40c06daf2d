//! The limit that handshakes and registrations are measured against: rustls alone, with the server's own options, and no
//! application behind it.
//!
//! It serves until its standard input ends, so that it never outlives the bench. It must never read what clients say.
//! Start at [`run`].

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use server::tls::configuration_template;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::server::LOOPBACK;

/// What the peer presents itself with.
#[derive(Debug, Args)]
pub struct PeerArgs {
    /// Certificate chain (PEM), leaf first
    #[arg(long)]
    chain: PathBuf,
    /// Private key (PEM)
    #[arg(long)]
    key: PathBuf,
}

/// Prints the port, then finishes handshakes until standard input ends.
pub fn run(args: &PeerArgs) -> Result<()> {
    let config = configuration(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((LOOPBACK, 0)).await?;
        let mut out = std::io::stdout();
        writeln!(out, "{}", listener.local_addr()?.port())?;
        out.flush()?;
        let (ended, input_ended) = oneshot::channel();
        std::thread::spawn(move || ended.send(std::io::copy(&mut std::io::stdin(), &mut std::io::sink())));
        tokio::select! {
            _ = input_ended => Ok(()),
            failed = accept(listener, TlsAcceptor::from(config)) => failed,
        }
    })
}

fn configuration(args: &PeerArgs) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&args.chain).context("no certificate")?.collect();
    let key = PrivateKeyDer::from_pem_file(&args.key).context("no private key")?;
    let certified = CertifiedKey::from_der(chain?, key, &provider)?;
    let mut config = configuration_template(&provider)?;
    config.cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    Ok(Arc::new(config))
}

#[expect(clippy::disallowed_methods, reason = "the end of each task is looked at")]
async fn accept(listener: TcpListener, acceptor: TlsAcceptor) -> Result<()> {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                running.spawn(serve(stream, acceptor.clone()));
            }
            Some(ended) = running.join_next() => ended?,
        }
    }
}

/// Finishes the handshake, waits for the client's goodbye, and closes. A client that leaves early is no concern.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor) {
    if let Ok(mut stream) = acceptor.accept(stream).await {
        let _ = stream.read(&mut [0; 1]).await;
        let _ = stream.shutdown().await;
    }
}
