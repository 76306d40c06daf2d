//! Issuing: a key, a certificate and its chain.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use client::trust::ClientCertificate;
use domain::certificate::Certificate;
use p12_keystore::{KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize, SanType,
};

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Signs others.
    Authority,
    /// Proves a device.
    Device,
    /// Proves possession of the CA's key.
    Verification,
    /// Proves a server to those who dial the name or address that is its common name.
    Server,
}

/// Kind of a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyKind {
    /// ECDSA on P-256
    P256,
    /// ECDSA on P-384
    P384,
    /// RSA, 2048 bits
    Rsa2048,
    /// RSA, 4096 bits
    Rsa4096,
}

/// A certificate to be made.
#[derive(Clone, Copy, Debug)]
pub struct Issue<'a> {
    /// Its common name.
    pub common_name: &'a str,
    /// What it is for.
    pub role: Role,
    /// Days until it expires; not above zero for one that has expired.
    pub days: i32,
    /// Kind of its key.
    pub key: KeyKind,
    /// For a CA: certificates that may stand between it and a leaf.
    pub path_length: Option<u8>,
}

/// A private key with its certificate chain, leaf first.
pub struct Credential {
    key: KeyPair,
    chain: Vec<Vec<u8>>,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Issue<'_> {
    /// Makes the certificate, signed by `issuer` or by itself.
    pub fn make(&self, issuer: Option<&Credential>) -> Result<Credential> {
        let key = self.key.generate()?;
        let params = self.params();
        let certificate = match issuer {
            None => params.self_signed(&key)?,
            Some(issuer) => params.signed_by(&key, &issuer.as_issuer()?)?,
        };
        let mut chain = vec![certificate.der().to_vec()];
        chain.extend(issuer.iter().flat_map(|issuer| issuer.chain.iter().cloned()));
        Ok(Credential { key, chain })
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, self.common_name);
        // A little in the past, since the clocks of devices and servers differ.
        let now = params.not_before_now();
        let (start, end) = if self.days > 0 {
            (now - DAY, now + DAY * self.days.unsigned_abs())
        } else {
            let end = now - DAY * self.days.unsigned_abs();
            (end - DAY * 2, end)
        };
        (params.not_before, params.not_after) = (start, end);
        params.use_authority_key_identifier_extension = true;
        match self.role {
            Role::Authority => {
                params.is_ca =
                    IsCa::Ca(self.path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            }
            Role::Device => {
                params.is_ca = IsCa::ExplicitNoCa;
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                if let Ok(name) = self.common_name.try_into() {
                    params.subject_alt_names.push(SanType::DnsName(name));
                }
            }
            Role::Verification => params.is_ca = IsCa::ExplicitNoCa,
            Role::Server => {
                params.is_ca = IsCa::ExplicitNoCa;
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                if let Ok(address) = self.common_name.parse() {
                    params.subject_alt_names.push(SanType::IpAddress(address));
                } else if let Ok(name) = self.common_name.try_into() {
                    params.subject_alt_names.push(SanType::DnsName(name));
                }
            }
        }
        params
    }
}

/// The present moment in the type that certificates are made with.
trait Now {
    fn not_before_now(&self) -> time::OffsetDateTime;
}

impl Now for CertificateParams {
    fn not_before_now(&self) -> time::OffsetDateTime {
        use domain::clock::Clock as _;
        let seconds = service::clock::SystemClock.now().seconds();
        time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    }
}

impl KeyKind {
    fn generate(self) -> Result<KeyPair> {
        Ok(match self {
            Self::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Self::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?,
            Self::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
            Self::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096)?,
        })
    }
}

impl Credential {
    /// Reads what [`Self::chain_pem`] and [`Self::key_pem`] wrote.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key).context("the issuer's key file holds no private key")?;
        let mut certificates = Vec::new();
        for block in chain.split_inclusive("-----END CERTIFICATE-----") {
            if block.contains("-----BEGIN CERTIFICATE-----") {
                certificates.push(Certificate::from_pem_or_der(block.trim().as_bytes())?.der().to_vec());
            }
        }
        if certificates.is_empty() {
            bail!("the issuer's chain file holds no certificate");
        }
        Ok(Self { key, chain: certificates })
    }

    fn as_issuer(&self) -> Result<Issuer<'_, &KeyPair>> {
        let certificate = self.leaf().to_vec().into();
        Issuer::from_ca_cert_der(&certificate, &self.key).context("the issuer's certificate cannot sign others")
    }

    /// The certificate itself.
    pub fn leaf(&self) -> &[u8] {
        self.chain.first().map_or(&[], Vec::as_slice)
    }

    /// The certificate itself as PEM.
    pub fn leaf_pem(&self) -> String {
        to_pem(self.leaf())
    }

    /// The certificate and its issuers as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| to_pem(certificate)).collect()
    }

    /// The certificate and its issuers in DER, leaf first, and the private key in PKCS#8.
    pub fn to_client_certificate(&self) -> ClientCertificate {
        ClientCertificate { chain: self.chain.clone(), key: self.key.serialize_der() }
    }

    /// The private key as PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Key and chain as PKCS#12 under `password`.
    pub fn to_pkcs12(&self, alias: &str, password: &str) -> Result<Vec<u8>> {
        let key = PrivateKey::from_der(&self.key.serialize_der())?;
        let certificates: Result<Vec<_>, _> =
            self.chain.iter().map(|certificate| p12_keystore::Certificate::from_der(certificate)).collect();
        let digest = domain::sas::sha256(self.leaf());
        let id: &[u8] = digest.get(..20).unwrap_or(&digest);
        let mut store = KeyStore::new();
        store.add_entry(alias, KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(id, key, certificates?)));
        Ok(store.writer(password).write()?)
    }
}

fn to_pem(certificate: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}
