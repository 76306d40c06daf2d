//! What the load needs before it starts: a private authority, certificates of devices and peers, and TLS clients that
//! never resume a session.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use client::trust::{ClientCertificate, configure};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::ca::{Credential, Issue, KeyKind, Role};

/// Days that a bench's certificates live.
const DAYS: i32 = 2;

/// A root, an intermediate under it, and whom they sign.
pub struct Authority {
    root: Credential,
    intermediate: Credential,
}

/// A device with a certificate.
pub struct Device {
    /// Its common name.
    pub name: String,
    certified: Arc<CertifiedKey>,
}

/// TLS clients that make a full handshake every time.
#[derive(Clone)]
pub struct TlsClient {
    template: Arc<ClientConfig>,
}

impl Authority {
    /// A fresh one.
    pub fn make() -> Result<Self> {
        let authority = |name| Issue { common_name: name, role: Role::Authority, ..device("") };
        let root = authority("bench root").make(None)?;
        let intermediate = authority("bench intermediate").make(Some(&root))?;
        Ok(Self { root, intermediate })
    }

    /// The root as PEM: what clients of the peers trust.
    pub fn root_pem(&self) -> String {
        self.root.leaf_pem()
    }

    /// The root as DER: what a group is given.
    pub fn root_der(&self) -> &[u8] {
        self.root.leaf()
    }

    /// The certificate of a peer that is dialled at `address`.
    pub fn server(&self, address: &str) -> Result<Credential> {
        Issue { common_name: address, role: Role::Server, ..device("") }.make(Some(&self.root))
    }

    /// Devices called `names`, each with a key and a certificate of its own, signed by the intermediate.
    pub fn devices(&self, names: &[String]) -> Result<Vec<Device>> {
        let threads = std::thread::available_parallelism()?.get();
        let share = names.len().div_ceil(threads).max(1);
        let provider = aws_lc_rs::default_provider();
        let make = |name: &String| -> Result<Device> {
            let made = device(name).make(Some(&self.intermediate))?;
            let ClientCertificate { chain, key } = made.to_client_certificate();
            // Devices leave the root out: whoever verifies has it.
            let chain = chain.into_iter().take(2).map(CertificateDer::from).collect();
            let certified = CertifiedKey::from_der(chain, PrivateKeyDer::Pkcs8(key.into()), &provider)?;
            Ok(Device { name: name.clone(), certified: Arc::new(certified) })
        };
        std::thread::scope(|scope| {
            let make = |names: &[String]| names.iter().map(make).collect::<Result<Vec<_>>>();
            let running: Vec<_> = names.chunks(share).map(|names| scope.spawn(move || make(names))).collect();
            let mut made = Vec::with_capacity(names.len());
            for thread in running {
                made.extend(thread.join().ok().context("a thread that makes certificates failed")??);
            }
            Ok(made)
        })
    }
}

impl TlsClient {
    /// A client that trusts `authority` (PEM).
    pub fn trusting(authority: &str) -> Result<Self> {
        let mut template = ClientConfig::clone(&*configure(authority, None)?);
        template.resumption = Resumption::disabled();
        Ok(Self { template: Arc::new(template) })
    }

    /// Shows no certificate.
    pub fn anonymous(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.template)
    }

    /// Shows that of `device`, with its intermediate, if asked.
    pub fn showing(&self, device: &Device) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.template);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&device.certified)));
        Arc::new(config)
    }
}

fn device(name: &str) -> Issue<'_> {
    Issue { common_name: name, role: Role::Device, days: DAYS, key: KeyKind::P256, path_length: None }
}
