//! Makes certificates for tests. Keys are fresh; names, dates and constraints are the test's.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SignatureAlgorithm, date_time_ymd,
};

use super::Certificate;
use crate::clock::UnixTime;

/// The moment at which tests judge: 2026-06-01T00:00:00Z.
pub(crate) const NOON: UnixTime = UnixTime::from_seconds(1_780_272_000);

/// A certificate to be made.
pub(crate) struct Plan {
    pub(crate) params: CertificateParams,
    pub(crate) key: KeyPair,
}

/// A certificate with its key.
pub(crate) struct Made {
    pub(crate) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Plan {
    /// A leaf that is valid from 2026 to 2027.
    pub(crate) fn leaf(common_name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    /// An authority that is valid from 2026 to 2027 and may have any number of others below it.
    pub(crate) fn authority(common_name: &str) -> Self {
        let mut plan = Self::leaf(common_name);
        plan.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        plan.params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        plan
    }

    pub(crate) fn key(mut self, algorithm: &'static SignatureAlgorithm) -> Self {
        self.key = KeyPair::generate_for(algorithm).unwrap();
        self
    }

    pub(crate) fn same_key(mut self, other: &Made) -> Self {
        self.key = KeyPair::from_pem(&other.issuer.key().serialize_pem()).unwrap();
        self
    }

    pub(crate) fn path_length(mut self, limit: u8) -> Self {
        self.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(limit));
        self
    }

    pub(crate) fn years(mut self, from: i32, to: i32) -> Self {
        self.params.not_before = date_time_ymd(from, 1, 1);
        self.params.not_after = date_time_ymd(to, 1, 1);
        self
    }

    pub(crate) fn without_key_cert_sign(mut self) -> Self {
        self.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        self
    }

    pub(crate) fn critical_extension(mut self) -> Self {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        self.params.custom_extensions.push(extension);
        self
    }

    pub(crate) fn self_signed(self) -> Made {
        let made = self.params.self_signed(&self.key).unwrap();
        Made::new(&made, self)
    }

    pub(crate) fn signed_by(self, issuer: &Made) -> Made {
        let made = self.params.signed_by(&self.key, &issuer.issuer).unwrap();
        Made::new(&made, self)
    }
}

impl Made {
    fn new(made: &rcgen::Certificate, plan: Plan) -> Self {
        let certificate = Certificate::from_der(made.der()).unwrap();
        Self { certificate, issuer: Issuer::new(plan.params, plan.key) }
    }
}

/// What a client would present: leaf first.
pub(crate) fn presented(chain: &[&Made]) -> super::PresentedChain {
    let encoded: Vec<&[u8]> = chain.iter().map(|made| made.certificate.der()).collect();
    super::PresentedChain::from_der(&encoded).unwrap()
}
