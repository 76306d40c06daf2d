//! What is enrolled, and the credentials that are shown there.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::clock::UnixTime;
use domain::sas::{SasToken, SymmetricKey};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use testkit::raw_http::{RawHttp, RawRequest};
use testkit::whole::{Admin, Muster};
use tokio::io::{AsyncRead, AsyncWrite};

/// How long tokens hold, and how long ago the expired one ended: longer than any leeway.
const AN_HOUR: Duration = Duration::from_secs(3_600);
/// The key of what is enrolled by key.
const KEY: [u8; 32] = [1; 32];
/// A key of nothing.
const OTHER_KEY: [u8; 32] = [9; 32];

/// What MQTT refuses before there is a request to answer (`contract/dps-device.md` 3.7).
pub const REFUSED_AT_CONNECT: &[&str] = &[
    "no credential",
    "no credential, unknown ID",
    "a token for another device",
    "a token for another device, unknown ID",
    "a token for another ID scope",
    "a token for a hub",
    "a token that is none",
];

/// A credential, and whose it pretends to be.
pub struct Case {
    /// What is wrong with it.
    pub name: &'static str,
    /// The registration ID.
    pub id: &'static str,
    /// The token.
    pub token: Option<String>,
    /// The certificate.
    pub shown: Option<Shown>,
}

/// A chain, leaf first, and the leaf's key.
#[derive(Clone)]
pub struct Shown {
    /// DER.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8.
    pub key: Vec<u8>,
}

/// An authority.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A Muster in which devices are enrolled in every way.
pub struct Place {
    /// The Muster.
    pub muster: Muster,
    certified: Shown,
    lapsed: Shown,
    disabled: Shown,
    authority: Authority,
    disabled_authority: Authority,
}

impl Place {
    /// Starts it, and enrols.
    pub async fn make() -> Self {
        let muster = Muster::start().await.unwrap();
        let place = Self {
            muster,
            certified: self_signed("certified", 4_000),
            lapsed: self_signed("lapsed", 2_002),
            disabled: self_signed("disabled-certified", 4_000),
            authority: authority("authority"),
            disabled_authority: authority("disabled authority"),
        };
        place.upload("authority", &place.authority).await;
        place.upload("disabled", &place.disabled_authority).await;
        place.enrol().await;
        place
    }

    /// Makes `authority` a CA certificate of the provisioning service that counts as verified.
    async fn upload(&self, name: &str, authority: &Authority) {
        let Admin { host, subscription, token, .. } = &self.muster.admin;
        let mut http = RawHttp::new(self.muster.dial_admin().await.unwrap());
        let body = json!({"properties": {"certificate": base64(authority.certificate.der()), "isVerified": true}});
        let path = format!(
            "/subscriptions/{subscription}/resourceGroups/muster/providers/Microsoft.Devices/provisioningServices/dps/\
             certificates/{name}?api-version=2022-12-12"
        );
        put(&mut http, (host, &format!("Bearer {token}")), path, &body).await;
    }

    /// Stops it.
    pub async fn leave(self) {
        self.muster.stop().await;
    }

    async fn enrol(&self) {
        let key = SymmetricKey::from_bytes(&KEY).unwrap().to_base64();
        let by_key = json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}});
        let by_leaf = |shown: &Shown| by_x509("clientCertificates", shown.chain.first().unwrap());
        let by_authority = |authority: &Authority| by_x509("signingCertificates", authority.certificate.der());
        let individual = |id: &str, attestation: &Value, status: &str| {
            let body = json!({"registrationId": id, "attestation": attestation, "provisioningStatus": status});
            (format!("/enrollments/{id}"), body)
        };
        let group = |id: &str, attestation: &Value, status: &str| {
            let body = json!({"enrollmentGroupId": id, "attestation": attestation, "provisioningStatus": status});
            (format!("/enrollmentGroups/{id}"), body)
        };
        let entries = [
            individual("keyed", &by_key, "enabled"),
            individual("disabled", &by_key, "disabled"),
            individual("certified", &by_leaf(&self.certified), "enabled"),
            individual("lapsed", &by_leaf(&self.lapsed), "enabled"),
            individual("disabled-certified", &by_leaf(&self.disabled), "disabled"),
            group("keys", &by_key, "enabled"),
            group("signed", &by_authority(&self.authority), "enabled"),
            group("disabled-signed", &by_authority(&self.disabled_authority), "disabled"),
        ];
        let Muster { provisioning, .. } = &self.muster;
        let mut http = RawHttp::new(self.muster.dial_https(&provisioning.host).await.unwrap());
        let owner = SasToken::write(
            &provisioning.owner.key,
            &provisioning.host,
            Some(&provisioning.owner.policy),
            self.muster.clock().now().plus(AN_HOUR),
        );
        for (path, body) in entries {
            put(&mut http, (&provisioning.host, &owner), format!("{path}?api-version=2021-10-01"), &body).await;
        }
    }

    /// Credentials that are taken, without which the others would show nothing.
    pub fn good(&self) -> Vec<Case> {
        vec![
            by_token("by key", "keyed", self.token("keyed", KEY)),
            by_certificate("by certificate", "certified", self.certified.clone()),
            by_certificate("by a group", "in-group", self.authority.sign("in-group", 4_000)),
        ]
    }

    /// Credentials that are refused.
    pub fn cases(&self) -> Vec<Case> {
        let mut cases = self.tokens();
        cases.extend(self.certificates());
        cases
    }

    fn tokens(&self) -> Vec<Case> {
        let now = self.muster.clock().now();
        let past = UnixTime::from_seconds(now.seconds() - i64::try_from(AN_HOUR.as_secs()).unwrap());
        let hub = format!("{}%2Fdevices%2Fkeyed", self.muster.hub.host);
        let resource = self.resource("keyed");
        let elsewhere = "0ne00000000%2Fregistrations%2Fkeyed";
        let good_until =
            |resource: &str, until| SasToken::write(&symmetric(KEY), resource, Some("registration"), until);
        let good = |resource: &str| good_until(resource, now.plus(AN_HOUR));
        vec![
            by_token("a wrong key", "keyed", self.token("keyed", OTHER_KEY)),
            by_token("an unknown ID", "unknown", self.token("unknown", OTHER_KEY)),
            by_token("the group's own key", "unknown", self.token("unknown", KEY)),
            by_token("disabled", "disabled", self.token("disabled", KEY)),
            by_token("disabled, and a wrong key", "disabled", self.token("disabled", OTHER_KEY)),
            by_token("a key where a certificate is enrolled", "certified", self.token("certified", KEY)),
            by_token("an expired token", "keyed", good_until(&resource, past)),
            by_token("an expired token, unknown ID", "unknown", good_until(&self.resource("unknown"), past)),
            by_token("a token for another device", "keyed", good(&self.resource("other"))),
            by_token("a token for another device, unknown ID", "unknown", good(&self.resource("other"))),
            by_token("a token for another ID scope", "keyed", good(elsewhere)),
            by_token("a token for a hub", "keyed", good(&hub)),
            by_token("a token that is none", "keyed", "SharedAccessSignature nothing".to_owned()),
            Case { name: "no credential", id: "keyed", token: None, shown: None },
            Case { name: "no credential, unknown ID", id: "unknown", token: None, shown: None },
        ]
    }

    fn certificates(&self) -> Vec<Case> {
        let signed = |id: &str| self.authority.sign(id, 4_000);
        let stranger = authority("stranger");
        let namesake = authority("authority");
        vec![
            by_certificate("an expired certificate", "lapsed", self.lapsed.clone()),
            by_certificate("an expired certificate of a group", "in-group", self.authority.sign("in-group", 2_002)),
            by_certificate("a wrong certificate", "certified", self_signed("certified", 4_000)),
            by_certificate("a certificate where a key is enrolled", "keyed", self_signed("keyed", 4_000)),
            by_certificate("a certificate of an unknown ID", "unknown", self_signed("unknown", 4_000)),
            by_certificate("an unknown CA", "in-group", stranger.sign("in-group", 4_000)),
            by_certificate("an unknown CA of a known name", "in-group", namesake.sign("in-group", 4_000)),
            by_certificate("another common name", "someone", signed("in-group")),
            by_certificate("another common name, enrolled", "certified", signed("in-group")),
            by_certificate("a disabled certificate", "disabled-certified", self.disabled.clone()),
            by_certificate("a disabled group", "in-group", self.disabled_authority.sign("in-group", 4_000)),
        ]
    }

    fn resource(&self, id: &str) -> String {
        format!("{}%2Fregistrations%2F{id}", self.muster.id_scope)
    }

    fn token(&self, id: &str, key: [u8; 32]) -> String {
        let until = self.muster.clock().now().plus(AN_HOUR);
        SasToken::write(&symmetric(key), &self.resource(id), Some("registration"), until)
    }
}

impl Authority {
    /// A leaf that ends with the year before `until`.
    fn sign(&self, common_name: &str, until: i32) -> Shown {
        let key = KeyPair::generate().unwrap();
        let leaf = named(common_name, until).signed_by(&key, &self.issuer).unwrap();
        Shown { chain: vec![leaf.der().to_vec(), self.certificate.der().to_vec()], key: key.serialize_der() }
    }
}

fn by_token(name: &'static str, id: &'static str, token: String) -> Case {
    Case { name, id, token: Some(token), shown: None }
}

fn by_certificate(name: &'static str, id: &'static str, shown: Shown) -> Case {
    Case { name, id, token: None, shown: Some(shown) }
}

/// Puts `body`, by a host and a token.
async fn put<S: AsyncRead + AsyncWrite + Unpin>(
    http: &mut RawHttp<S>,
    (host, token): (&str, &str),
    target: String,
    body: &Value,
) {
    let headers = [("Host", host), ("Authorization", token), ("Content-Type", "application/json")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).to_vec();
    let request = RawRequest { method: "PUT".to_owned(), target, headers, body: body.to_string().into_bytes() };
    let answer = http.exchange(&request).await.unwrap();
    assert!(matches!(answer.status, 200 | 201), "{}: {}", request.target, answer.text());
}

fn by_x509(kind: &str, der: &[u8]) -> Value {
    json!({"type": "x509", "x509": {kind: {"primary": {"certificate": base64(der)}}}})
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn symmetric(key: [u8; 32]) -> SymmetricKey {
    SymmetricKey::from_bytes(&key).unwrap()
}

fn named(common_name: &str, until: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

fn self_signed(common_name: &str, until: i32) -> Shown {
    let key = KeyPair::generate().unwrap();
    let leaf = named(common_name, until).self_signed(&key).unwrap();
    Shown { chain: vec![leaf.der().to_vec()], key: key.serialize_der() }
}

fn authority(common_name: &str) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = named(common_name, 4_000);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    Authority { certificate, issuer: Issuer::new(params, key) }
}
