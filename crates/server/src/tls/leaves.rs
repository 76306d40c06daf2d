//! Which server certificate a connection gets, and the leaves made for it on demand.
//!
//! A leaf is issued when the first client asks for its names, kept until it nears its end, and made again then, without
//! a restart. Everything here happens between the ClientHello and the server's answer; it must never depend on who the
//! client is. Start reading at [`ServerCertificates::choose`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Once, PoisonError};

use arc_swap::ArcSwap;
use domain::clock::{Clock, Entropy, UnixTime};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ServerSessionMemoryCache};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use tokio::sync::watch;

use super::authority::Authority;
use super::hello;
use super::key_file::KeyFolder;
use super::operator::OperatorCertificate;
use super::tickets::BoundedTickets;
use super::verifier::AcceptAnyClient;
use crate::names::{CertificateNames, Names};

/// The file of the key that all RSA leaves share.
pub const RSA_KEY_FILE: &str = "server-rsa.key";

/// Sessions kept for TLS 1.2 clients that resume by session ID; the others carry their session in a ticket.
const SESSIONS_KEPT: usize = 4_096;

/// Tickets given out per TLS 1.3 handshake. A device holds one connection, and each ticket costs an encryption of the
/// chain that the device presented.
const TLS13_TICKETS: usize = 1;

/// Why no certificate can be offered.
#[derive(Debug, thiserror::Error)]
pub enum CertificateUnavailable {
    /// The RSA key could not be made; the log says why.
    #[error("there is no RSA key for a client that cannot verify ECDSA")]
    NoRsaKey,
    /// The instance CA could not issue a leaf.
    #[error("the instance CA could not issue a certificate")]
    Issue(#[from] rcgen::Error),
    /// TLS does not take the key.
    #[error("the key of a certificate cannot be used")]
    Key(#[from] rustls::Error),
}

/// What the rim needs to present itself to clients.
pub struct ServerCertificates {
    authority: Authority,
    rsa_key: Arc<RsaKeySource>,
    operator: ArcSwap<Vec<(OperatorCertificate, Leaf)>>,
    names: Arc<Names>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    template: ServerConfig,
    leaves: ArcSwap<HashMap<LeafId, Leaf>>,
    issuing: Mutex<()>,
}

/// What a leaf is found by.
type LeafId = (CertificateNames, KeyKind);

/// What [`ServerCertificates::new`] builds on.
pub struct CertificateSources {
    /// Issues leaves.
    pub authority: Authority,
    /// Where the RSA key is kept; `None` makes one per start, in memory.
    pub folder: Option<KeyFolder>,
    /// The names that certificates must carry.
    pub names: Arc<Names>,
    /// Tells when leaves end.
    pub clock: Arc<dyn Clock>,
    /// Fills serial numbers.
    pub entropy: Arc<dyn Entropy>,
}

/// The kind of key a server certificate is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum KeyKind {
    EcdsaP256,
    Rsa2048,
}

/// How to answer a ClientHello.
pub(super) enum Choice {
    /// With this configuration.
    Ready(Arc<ServerConfig>),
    /// With an RSA leaf, as soon as there is a key for it: see [`ServerCertificates::rsa_configuration`].
    AwaitsRsaKey(RsaLeafWanted),
}

/// An RSA leaf that a client waits for.
pub(super) struct RsaLeafWanted {
    names: CertificateNames,
    http: bool,
}

/// A certificate ready for use.
#[derive(Clone)]
struct Leaf {
    /// For ports that negotiate no protocol, and for clients that offer none of ours.
    plain: Arc<ServerConfig>,
    /// For HTTP clients that offer `h2` or `http/1.1`.
    http: Arc<ServerConfig>,
    /// `None`: the operator renews it.
    renew_at: Option<UnixTime>,
}

/// The key that all RSA leaves share. Most instances never need it.
struct RsaKeySource {
    /// Where it is kept; `None` makes one per start.
    folder: Option<KeyFolder>,
    asked: Once,
    state: watch::Sender<RsaKey>,
}

enum RsaKey {
    Pending,
    Ready(Arc<LeafKey>),
    Failed,
}

/// One key in the two forms that issuing and signing need.
struct LeafKey {
    pair: KeyPair,
    signing: Arc<dyn SigningKey>,
}

impl ServerCertificates {
    /// Starts with no leaf, and without the RSA key: it is loaded or made when the first client needs it, which waits.
    pub fn new(sources: CertificateSources) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let template = configuration_template(&provider)?;
        Ok(Self {
            authority: sources.authority,
            rsa_key: Arc::new(RsaKeySource::new(sources.folder)),
            operator: ArcSwap::default(),
            names: sources.names,
            clock: sources.clock,
            entropy: sources.entropy,
            template,
            leaves: ArcSwap::default(),
            issuing: Mutex::new(()),
        })
    }

    /// The CA certificate in PEM form: what clients must trust.
    pub fn authority_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// The cryptography in use, for loading operators' certificates.
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        self.template.crypto_provider()
    }

    /// Puts the operator's certificates in force for every later handshake, in order of preference.
    pub fn replace_operator_certificates(&self, certificates: Vec<OperatorCertificate>) {
        let ready = |certificate: OperatorCertificate| {
            let leaf = self.leaf_of(Arc::clone(&certificate.key), None);
            (certificate, leaf)
        };
        self.operator.store(Arc::new(certificates.into_iter().map(ready).collect()));
    }

    /// Chooses the answer to `hello`, which dialled `dialled`; with `http`, its port speaks HTTP.
    pub(super) fn choose(
        &self,
        hello: &ClientHello<'_>,
        dialled: IpAddr,
        http: bool,
    ) -> Result<Choice, CertificateUnavailable> {
        let http = http && hello::offers_http(hello);
        let names = self.names.current().find(dialled, hello.server_name()).clone();
        if let Some(configuration) = self.operator_configuration(hello, &names, http) {
            return Ok(Choice::Ready(configuration));
        }
        let provider = self.provider();
        if !hello::takes_ecdsa_p256(hello, provider) && hello::takes_rsa(hello, provider) {
            return Ok(Choice::AwaitsRsaKey(RsaLeafWanted { names, http }));
        }
        let leaf = self.leaf((names, KeyKind::EcdsaP256), || {
            Ok(Arc::new(LeafKey::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?, provider)?))
        })?;
        Ok(Choice::Ready(leaf.configuration(http)))
    }

    /// Answers with a leaf for the RSA key, waiting for the key if it is still to be made.
    pub(super) async fn rsa_configuration(
        &self,
        wanted: RsaLeafWanted,
    ) -> Result<Arc<ServerConfig>, CertificateUnavailable> {
        let key = self.rsa_key.key(self.provider()).await?;
        let leaf = self.leaf((wanted.names, KeyKind::Rsa2048), || Ok(key))?;
        Ok(leaf.configuration(wanted.http))
    }

    fn operator_configuration(
        &self,
        hello: &ClientHello<'_>,
        names: &CertificateNames,
        http: bool,
    ) -> Option<Arc<ServerConfig>> {
        let usable = |(certificate, _): &&(OperatorCertificate, Leaf)| {
            certificate.covers(hello.server_name(), names)
                && hello::takes_key(hello, self.provider(), certificate.key.key.as_ref())
        };
        self.operator.load().iter().find(usable).map(|(_, leaf)| leaf.configuration(http))
    }

    /// The leaf kept for `id`, or a fresh one for the key that `key` gives.
    fn leaf(
        &self,
        id: LeafId,
        key: impl FnOnce() -> Result<Arc<LeafKey>, CertificateUnavailable>,
    ) -> Result<Leaf, CertificateUnavailable> {
        if let Some(leaf) = self.kept_leaf(&id) {
            return Ok(leaf);
        }
        let _one_at_a_time = self.issuing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = self.kept_leaf(&id) {
            return Ok(leaf);
        }
        let key = key()?;
        let issued = self.authority.issue(&id.0, &key.pair, self.clock.now(), self.entropy.as_ref())?;
        let certified = CertifiedKey::new(vec![issued.certificate], Arc::clone(&key.signing));
        let leaf = self.leaf_of(Arc::new(certified), Some(issued.renew_at));
        self.keep(id, leaf.clone());
        Ok(leaf)
    }

    fn kept_leaf(&self, id: &LeafId) -> Option<Leaf> {
        let leaf = self.leaves.load().get(id).cloned()?;
        leaf.renew_at.is_none_or(|renew_at| self.clock.now() < renew_at).then_some(leaf)
    }

    /// Adds a leaf, and lets go of those for names that no connection asks for any more.
    fn keep(&self, id: LeafId, leaf: Leaf) {
        let table = self.names.current();
        let mut leaves = HashMap::clone(&self.leaves.load());
        leaves.retain(|(names, _), _| table.contains(names));
        leaves.insert(id, leaf);
        self.leaves.store(Arc::new(leaves));
    }

    fn leaf_of(&self, key: Arc<CertifiedKey>, renew_at: Option<UnixTime>) -> Leaf {
        let mut plain = self.template.clone();
        plain.cert_resolver = Arc::new(SingleCertAndKey::from(key));
        let mut http = plain.clone();
        http.alpn_protocols = hello::http_protocols();
        Leaf { plain: Arc::new(plain), http: Arc::new(http), renew_at }
    }
}

impl Leaf {
    fn configuration(&self, http: bool) -> Arc<ServerConfig> {
        Arc::clone(if http { &self.http } else { &self.plain })
    }
}

impl LeafKey {
    fn new(pair: KeyPair, provider: &CryptoProvider) -> Result<Self, rustls::Error> {
        let der = PrivateKeyDer::try_from(pair.serialize_der())
            .map_err(|reason| rustls::Error::General(reason.to_owned()))?;
        Ok(Self { signing: provider.key_provider.load_private_key(der)?, pair })
    }
}

/// What every configuration has in common: versions, suites, client certificates and resumption. The provider's suites
/// are all AEAD with ECDHE (`rules.md` 25 of the design). It has no certificate of its own.
pub fn configuration_template(provider: &Arc<CryptoProvider>) -> Result<ServerConfig, rustls::Error> {
    // Replaced per leaf; a template never answers a client.
    let no_certificate = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
    let mut template = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(AcceptAnyClient::new(provider))
        .with_cert_resolver(no_certificate);
    template.session_storage = ServerSessionMemoryCache::new(SESSIONS_KEPT);
    template.ticketer = Arc::new(BoundedTickets::new()?);
    template.send_tls13_tickets = TLS13_TICKETS;
    Ok(template)
}

impl RsaKeySource {
    fn new(folder: Option<KeyFolder>) -> Self {
        Self { folder, asked: Once::new(), state: watch::Sender::new(RsaKey::Pending) }
    }

    /// The key; the first to ask has it loaded or made, on a thread of its own since making takes up to half a second.
    async fn key(self: &Arc<Self>, provider: &Arc<CryptoProvider>) -> Result<Arc<LeafKey>, CertificateUnavailable> {
        let mut state = self.state.subscribe();
        self.asked.call_once(|| {
            let (source, provider) = (Arc::clone(self), Arc::clone(provider));
            let thread = std::thread::Builder::new().name("rsa-key".into());
            if let Err(error) = thread.spawn(move || source.load_or_make(&provider)) {
                tracing::error!(%error, "the thread that makes the RSA key cannot be started");
                self.state.send_replace(RsaKey::Failed);
            }
        });
        let settled = state.wait_for(|key| !matches!(key, RsaKey::Pending)).await;
        match settled.as_deref() {
            Ok(RsaKey::Ready(key)) => Ok(Arc::clone(key)),
            Ok(RsaKey::Pending | RsaKey::Failed) | Err(_) => Err(CertificateUnavailable::NoRsaKey),
        }
    }

    fn load_or_make(&self, provider: &CryptoProvider) {
        let key = load_or_make_rsa_key(self.folder.as_ref())
            .and_then(|pair| LeafKey::new(pair, provider).map_err(|error| error.to_string()));
        let outcome = key.map_or_else(
            |error| {
                tracing::error!(error, "there is no RSA key: clients that cannot verify ECDSA are refused");
                RsaKey::Failed
            },
            |key| RsaKey::Ready(Arc::new(key)),
        );
        self.state.send_replace(outcome);
    }
}

fn load_or_make_rsa_key(folder: Option<&KeyFolder>) -> Result<KeyPair, String> {
    let generate = || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(|error| error.to_string());
    let Some(folder) = folder else {
        return generate();
    };
    if let Some(key) = folder.read_key(RSA_KEY_FILE).map_err(|error| error.to_string())? {
        return Ok(key);
    }
    let key = generate()?;
    folder.write_key(RSA_KEY_FILE, &key).map_err(|error| error.to_string())?;
    Ok(key)
}
