//! A rim in process for the tests of this crate: real sockets, real TLS, an instance CA in memory, and odd clients.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use domain::clock::{Clock, Entropy, ManualClock, SeededEntropy};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use service::clock::SystemClock;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http::HttpServer;
use crate::listener::{Binder, PortWanted, RunningListener};
use crate::names::{CertificateNames, NameTable, Names};
use crate::shutdown::Tasks;
use crate::tls::authority::Authority;
use crate::tls::key_file::KeyFolder;
use crate::tls::{
    CertificateSources, Connection, HandshakeError, PortProtocol, ServerCertificates, TlsAcceptor, TlsSettings,
};

/// Both versions, for tests that hold in each.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Makes the HTTP end of a port.
pub(crate) type HttpMaker = Box<dyn FnOnce(&Tasks) -> HttpServer>;

/// A port whose finished handshakes are handed to the test.
pub(crate) struct TestRim {
    pub(crate) certificates: Arc<ServerCertificates>,
    pub(crate) names: Arc<Names>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) tasks: Tasks,
    pub(crate) listener: RunningListener,
    accepted: Mutex<mpsc::Receiver<Result<Connection, HandshakeError>>>,
}

impl TestRim {
    /// A port that speaks no HTTP, with default limits.
    pub(crate) fn start() -> Self {
        Self::start_with(TlsSettings::default(), PortProtocol::Other)
    }

    pub(crate) fn start_with(settings: TlsSettings, protocol: PortProtocol) -> Self {
        Self::start_serving(settings, protocol, None)
    }

    /// A port whose finished handshakes go to `http`, if given, and to the test otherwise.
    pub(crate) fn start_serving(settings: TlsSettings, protocol: PortProtocol, http: Option<HttpMaker>) -> Self {
        Self::start_in(None, settings, protocol, http)
    }

    /// As the others, with the RSA key in `folder`.
    pub(crate) fn start_in(
        folder: Option<KeyFolder>,
        settings: TlsSettings,
        protocol: PortProtocol,
        http: Option<HttpMaker>,
    ) -> Self {
        let (sender, accepted) = mpsc::channel(16);
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(7));
        let names = Arc::new(Names::new(
            NameTable::new(names(&["127.0.0.1", "localhost"]))
                .with_address(address("127.0.0.2"), names(&["127.0.0.2"]))
                .with_address(address("127.0.0.3"), names(&["127.0.0.3"]))
                .with_host("hub.example.org", names(&["hub.example.org"])),
        ));
        let sources = CertificateSources {
            authority: Authority::in_memory(clock.now(), entropy.as_ref()).expect("a CA"),
            folder,
            names: Arc::clone(&names),
            clock: clock.clone(),
            entropy,
        };
        let certificates = Arc::new(ServerCertificates::new(sources).expect("a configuration"));
        let acceptor = TlsAcceptor::new(Arc::clone(&certificates), settings, protocol);
        let tasks = Tasks::new();
        let binder = Binder { addresses: ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(address).into(), strict: true };
        let wanted = PortWanted { purpose: "test", port: 0, explicit: false };
        let (in_tasks, http) = (tasks.clone(), http.map(|make| make(&tasks)));
        let listener = binder
            .bind(wanted)
            .expect("a free port")
            .start(&tasks, move |incoming| {
                let (acceptor, http, drain) = (acceptor.clone(), http.clone(), in_tasks.drain_signal());
                let sender = sender.clone();
                async move {
                    match (acceptor.accept(incoming).await, http) {
                        (Ok(connection), Some(http)) => http.serve(connection, drain).await,
                        (outcome, _) => drop(sender.send(outcome).await),
                    }
                }
            })
            .expect("a listener");
        Self { certificates, names, clock, tasks, listener, accepted: Mutex::new(accepted) }
    }

    /// What the next handshake came to.
    pub(crate) async fn outcome(&self) -> Result<Connection, HandshakeError> {
        let mut accepted = self.accepted.lock().await;
        tokio::time::timeout(PATIENCE, accepted.recv()).await.expect("in time").expect("the port serves")
    }

    /// Dials `host` and handshakes, checking the certificate against the instance CA and `host`.
    pub(crate) async fn dial(&self, host: &str, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        self.dial_as(host, ServerName::try_from(host.to_owned()).expect("a name"), config).await
    }

    /// Dials `host` in the belief that it is `name`.
    pub(crate) async fn dial_as(
        &self,
        host: &str,
        name: ServerName<'static>,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.dialled(host)).await?;
        TlsConnector::from(Arc::clone(config)).connect(name, stream).await
    }

    pub(crate) fn dialled(&self, host: &str) -> SocketAddr {
        SocketAddr::new(address(host), self.listener.port())
    }

    /// A client that trusts the instance CA and shows nothing.
    pub(crate) fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        self.client_builder(version).with_no_client_auth()
    }

    /// A client that shows `certificate`, whatever it looks like.
    pub(crate) fn client_showing(
        &self,
        version: &'static SupportedProtocolVersion,
        certificate: CertifiedKey,
    ) -> ClientConfig {
        self.client_builder(version).with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)))
    }

    fn client_builder(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.certificates.authority_pem().as_bytes());
        roots.add(authority.expect("PEM")).expect("a CA");
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("suites of that version")
            .with_root_certificates(roots)
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn names(list: &[&str]) -> CertificateNames {
    CertificateNames::new(list).expect("names")
}

/// A chain and the key that its owner signs with, which need not belong together.
pub(crate) fn shown(chain: Vec<CertificateDer<'static>>, key: &rcgen::KeyPair) -> CertifiedKey {
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
    CertifiedKey::new(chain, provider().key_provider.load_private_key(key).expect("a signing key"))
}

/// Takes any server certificate, and claims to understand only some signatures.
#[derive(Debug)]
pub(crate) struct TakesAnything(pub(crate) Vec<SignatureScheme>);

impl ServerCertVerifier for TakesAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
