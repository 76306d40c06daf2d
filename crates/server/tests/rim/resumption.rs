//! A resumed TLS session brings the certificate of its first handshake along, and no trust in it.

use std::sync::Arc;
use std::time::Duration;

use client::https::Server;
use client::trust::ClientCertificate;
use domain::certificate::Certificate;
use domain::clock::{Clock as _, ManualClock};
use proto::mqtt::{Connack, Packet, Refusal};
use rustls::{ClientConfig, HandshakeKind};
use serde_json::json;
use service::clock::SystemClock;
use testkit::raw_mqtt::{Heard, RawMqtt, connect};
use testkit::whole::Muster;

use crate::ground::create_device;

const DEVICE: &str = "short-lived";
const LIFETIME: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_between_two_connections_is_refused_on_the_resumed_one() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let muster = Muster::start_by(clock.clone()).await.expect("a server");
    let (certificate, thumbprint) = short_lived(&clock);
    let thumbprints = json!({ "primaryThumbprint": thumbprint, "secondaryThumbprint": thumbprint });
    create_device(&muster, DEVICE, &json!({ "type": "selfSigned", "x509Thumbprint": thumbprints })).await;
    let trust = muster.trust(Some(certificate)).expect("trust");

    let accepted = Connack::Accepted { session_present: false };
    assert_eq!(connect_by(&muster, &trust).await, (HandshakeKind::Full, accepted));
    assert_eq!(connect_by(&muster, &trust).await, (HandshakeKind::Resumed, accepted));
    clock.advance(LIFETIME * 2);
    let refused = Connack::Refused(Refusal::NotAuthorized);
    assert_eq!(connect_by(&muster, &trust).await, (HandshakeKind::Resumed, refused));
    muster.stop().await;
}

/// How the handshake goes, and what CONNECT is answered.
async fn connect_by(muster: &Muster, trust: &Arc<ClientConfig>) -> (HandshakeKind, Connack) {
    let server = Server { host: muster.hub.host.clone(), port: muster.mqtts_port() };
    let stream = client::https::connect(trust, &server).await.expect("a handshake");
    let kind = stream.get_ref().1.handshake_kind().expect("a finished handshake");
    let mut client = RawMqtt::new(stream);
    let username = format!("{}/{DEVICE}/?api-version=2021-04-12", muster.hub.host);
    client.say(&Packet::Connect(Box::new(connect(DEVICE, &username, "").expect("text")))).await;
    match client.hear().await {
        Heard::Packet(Packet::Connack(connack)) => (kind, connack),
        other => panic!("{other:?}"),
    }
}

/// A certificate that holds for [`LIFETIME`], and its thumbprint.
fn short_lived(clock: &ManualClock) -> (ClientCertificate, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, DEVICE);
    let now = std::time::UNIX_EPOCH + Duration::from_secs(clock.now().seconds().unsigned_abs());
    params.not_before = (now - LIFETIME).into();
    params.not_after = (now + LIFETIME).into();
    let leaf = params.self_signed(&key).expect("a certificate").der().to_vec();
    let thumbprint = Certificate::from_der(&leaf).expect("a certificate").sha256_hex();
    (ClientCertificate { chain: vec![leaf], key: key.serialize_der() }, thumbprint)
}
