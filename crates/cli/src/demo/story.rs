//! The story, step by step: what the operator does, what the devices do, and what each can prove afterwards.
//!
//! Every step is ticked off when it is done; the first that fails ends the story. Start at [`Story::tell`].

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use client::device::Registration;
use serde_json::json;

use super::evidence::{
    CertificateEvidence, DesiredEvidence, DeviceEvidence, Evidence, GroupEvidence, HubEvidence, MessageEvidence,
    RefusalEvidence, ServiceEvidence, TwinEvidence,
};
use super::fleet::{self, DEVICES, Device, MESSAGES, Place};
use super::operator::{self, GROUP_ID, Operator, text};
use super::progress::{Progress, Task, milliseconds, rounded};
use super::telemetry;
use crate::ca::{self, Credential, Role};
use crate::context::Context;

/// The desired temperature of the tutorial.
const TEMPERATURE: f64 = 50.123;
/// What the twins of the group begin with: seconds between two readings.
const TELEMETRY_DELAY: &str = "1";
/// What a refused device is told, whatever the reason.
const UNAUTHORIZED: (u16, u64) = (401, 401_002);
/// What helps where nothing else is known to.
const AGAIN: &str = "run the demo again; if it stops there again, the log named here says what the server did";

/// Who takes part.
pub struct Story<'a> {
    /// Ticks.
    pub progress: &'a Progress,
    /// The server.
    pub context: &'a Context,
    /// Where certificates and keys are kept.
    pub certificates: &'a Path,
}

/// What the operator has set up.
struct Stage<'a> {
    operator: Operator<'a>,
    service: ServiceEvidence,
    hub: HubEvidence,
    certificate: CertificateEvidence,
    group: GroupEvidence,
    root: Credential,
}

/// What the devices have to show after their first day.
struct FirstDay {
    provisioned: [Provisioned; 3],
    messages: [Vec<MessageEvidence>; 3],
    twins: [TwinEvidence; 3],
}

/// A registration, and the protocol that it came over as the server says.
struct Provisioned {
    registration: Registration,
    protocol: &'static str,
}

impl Story<'_> {
    /// Tells it.
    pub async fn tell(&self) -> Result<Evidence> {
        let stage = self.set_up().await?;
        let place = Place {
            host: stage.service.device_endpoint.clone(),
            id_scope: stage.service.id_scope.clone(),
            ports: self.context.endpoints.ports,
        };
        let mut devices = self.make_devices(&stage).await?;
        let first_day = self.work(&stage, &place, &mut devices).await?;
        let desired = self.change_temperature(&stage, &mut devices).await?;
        let refusals = self.shut_out(&stage, &place, &mut devices).await?;
        for device in &mut devices {
            device.disconnect().await;
        }
        Ok(self.evidence(stage, first_day, desired, refusals))
    }

    fn step<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<(T, String)>>,
    ) -> impl Future<Output = Result<T>> {
        self.progress.step(Task { doing, advice: AGAIN }, work)
    }

    async fn set_up(&self) -> Result<Stage<'_>> {
        let context = self.context;
        let service = self.step("creating the provisioning service", async {
            let made = operator::create_service(context).await?;
            let told = format!("provisioning service {} created, ID scope {}", made.name, made.id_scope);
            Ok((made, told))
        });
        let service = service.await?;
        let hub = self.step("creating the hub", async {
            let made = operator::create_hub(context).await?;
            let told = format!("hub {} created at {} and linked to {}", made.name, made.host_name, service.name);
            Ok((made, told))
        });
        let hub = hub.await?;
        let root = self.step("uploading the root CA", async {
            let root = operator::upload_root(context).await?;
            ca::write(&root, self.certificates, "root", (None, false))?;
            Ok((root, format!("root CA made and uploaded as {}, unverified", operator::CERTIFICATE_NAME)))
        });
        let root = root.await?;
        let certificate = self.step("proving possession of the root CA's key", async {
            let proved = operator::prove_possession(context, &root).await?;
            let told = "possession of its key proved by a certificate for the verification code: verified".to_owned();
            Ok((proved, told))
        });
        let certificate = certificate.await?;
        let (operator, group) = self
            .step("creating the enrollment group", async {
                let operator = Operator::new(context, &service, &hub).await?;
                let twin = json!({
                    "tags": {}, "properties": { "desired": { "telemetryDelay": TELEMETRY_DELAY } }
                });
                let group = operator.create_group(twin).await?;
                let told = format!(
                    "enrollment group {GROUP_ID} created, its twins begin with telemetryDelay {TELEMETRY_DELAY:?}"
                );
                Ok(((operator, group), told))
            })
            .await?;
        Ok(Stage { operator, service, hub, certificate, group, root })
    }

    async fn make_devices(&self, stage: &Stage<'_>) -> Result<[Device; 3]> {
        let authority = std::fs::read_to_string(&self.context.endpoints.ca_file)?;
        let make = |(name, transport)| {
            let credential = operator::issue(name, Role::Device, Some(&stage.root))?;
            ca::write(&credential, self.certificates, name, (None, false))?;
            Device::new((name, transport), &credential, &authority)
        };
        self.step("making the devices' certificates", async {
            let [one, two, three] = DEVICES.map(make);
            Ok((
                [one?, two?, three?],
                format!("device certificates made for {}", DEVICES.map(|(name, _)| name).join(", ")),
            ))
        })
        .await
    }

    /// The devices are provisioned side by side, connect, send, and read their twins.
    async fn work(&self, stage: &Stage<'_>, place: &Place, devices: &mut [Device; 3]) -> Result<FirstDay> {
        let [one, two, three] = &*devices;
        let provision = |device| self.provision(&stage.operator, device, place);
        let provisioned: [_; 3] = tokio::try_join!(provision(one), provision(two), provision(three))?.into();
        for Provisioned { registration, .. } in &provisioned {
            let (found, wanted) = (&registration.assigned_hub, &stage.hub.host_name);
            ensure!(found == wanted, "{} was assigned to {found}, not {wanted}", registration.registration_id);
        }
        let sent = self.step("sending telemetry", async {
            let [one, two, three] = devices.each_mut();
            let host = stage.hub.host_name.as_str();
            let send = async |device: &mut Device| {
                device.connect(place, host).await?;
                device.send_telemetry().await
            };
            let sent: [_; 3] = tokio::try_join!(send(one), send(two), send(three))?.into();
            let told = format!("all three connected to {host}; each had {MESSAGES} messages of telemetry acknowledged");
            Ok((sent, told))
        });
        let [one, two, three] = sent.await?;
        let messages = self.step("reading the telemetry as the operator", async {
            let senders = [(DEVICES[0].0, one), (DEVICES[1].0, two), (DEVICES[2].0, three)];
            let mut watch = stage.operator.watch().await?;
            let read = telemetry::read_back(&mut watch, senders).await?;
            watch.close().await;
            let count: usize = read.iter().map(Vec::len).sum();
            Ok((read, format!("the operator read all {count} messages from the hub, unchanged and in order")))
        });
        let messages = messages.await?;
        let twins = self.step("reading the devices' twins", async {
            let [one, two, three] = devices.each_mut();
            let read = async |device: &mut Device| {
                let twin = device.twin().await?;
                let delay = twin.desired.get("telemetryDelay").cloned().unwrap_or_default();
                ensure!(delay == TELEMETRY_DELAY, "the twin of {} has telemetryDelay {delay}", device.name);
                device.twin_versions().await
            };
            let read: [_; 3] = tokio::try_join!(read(one), read(two), read(three))?.into();
            Ok((read, format!("each read telemetryDelay {TELEMETRY_DELAY:?} from its own twin")))
        });
        Ok(FirstDay { provisioned, messages, twins: twins.await? })
    }

    /// A device is provisioned, by the protocol that it was to use: the server's decision is asked which one that was.
    async fn provision(&self, operator: &Operator<'_>, device: &Device, place: &Place) -> Result<Provisioned> {
        self.step("provisioning the devices", async {
            let registration = device.provision(place).await?;
            let word = operator.transport(&registration).await?;
            let (name, came_over) = (device.name, fleet::transport(&word));
            let transport = came_over.with_context(|| format!("{name} came over {word}, which is unknown"))?;
            let (protocol, wished) = (fleet::protocol(transport), fleet::protocol(device.transport));
            ensure!(transport == device.transport, "{name} came over {protocol}, not over {wished}");
            let told = format!("{name} provisioned over {protocol}, assigned to {}", registration.assigned_hub);
            Ok((Provisioned { registration, protocol }, told))
        })
        .await
    }

    async fn change_temperature(&self, stage: &Stage<'_>, devices: &mut [Device; 3]) -> Result<DesiredEvidence> {
        let [device, ..] = devices;
        let (operator, wanted) = (&stage.operator, json!(TEMPERATURE));
        let (etag_before, desired_version, seen_after) = self
            .step("changing the desired temperature", async {
                let etag_before = text(&operator.twin(device.name).await?, "/etag")?;
                device.follow_desired().await?;
                let started = Instant::now();
                let desired = operator.desire(device.name, json!({ "temperature": wanted }));
                let (_, ((temperature, version), after)) = tokio::try_join!(desired, async {
                    let seen = device.next_temperature().await?;
                    anyhow::Ok((seen, started.elapsed()))
                })?;
                ensure!(temperature == wanted, "{} saw {temperature} and not {wanted}", device.name);
                let told = format!(
                    "desired temperature {wanted} set by the operator, seen by {} after {:.1} ms",
                    device.name,
                    milliseconds(after)
                );
                Ok(((etag_before, version, after), told))
            })
            .await?;
        self.step("reporting the temperature", async {
            let reported_version = device.report_temperature(&wanted).await?;
            let twin = operator.twin(device.name).await?;
            let reported = twin.pointer("/properties/reported/temperature").cloned().unwrap_or_default();
            ensure!(reported == wanted, "the twin of {} says that {reported} was reported", device.name);
            let found = DesiredEvidence {
                device_id: device.name.to_owned(),
                temperature: reported,
                desired_version,
                reported_version,
                etag_before,
                etag_after: text(&twin, "/etag")?,
                seen_after_ms: milliseconds(seen_after),
            };
            Ok((found, format!("{} reported {wanted} back, as the operator's view of its twin shows", device.name)))
        })
        .await
    }

    /// One device is disenrolled, then the group is retired.
    async fn shut_out(
        &self,
        stage: &Stage<'_>,
        place: &Place,
        devices: &mut [Device; 3],
    ) -> Result<[Vec<RefusalEvidence>; 3]> {
        let operator = &stage.operator;
        let [.., last] = devices;
        self.step("disenrolling a device", async {
            let certificate = last.certificate.clone();
            operator.disenroll(last.name, &certificate).await?;
            last.be_cut_off().await?;
            Ok(((), format!("{} disenrolled, removed from the hub and cut off", last.name)))
        })
        .await?;
        let disenrolled = self.step("refusing the disenrolled device", async {
            let found = refusal(operator, last, place, "disabled-entry").await?;
            let told = format!("{} refused ({}); why: {}", last.name, found.status, found.what);
            Ok((found, told))
        });
        let disenrolled = disenrolled.await?;
        self.step("retiring the enrollment group", async {
            operator.retire_group().await?;
            Ok(((), format!("enrollment group {GROUP_ID} retired")))
        })
        .await?;
        let retired = self.step("refusing all devices", async {
            let [one, two, three] = &*devices;
            let found: [_; 3] = tokio::try_join!(
                refusal(operator, one, place, "unknown-ca"),
                refusal(operator, two, place, "unknown-ca"),
                refusal(operator, three, place, "disabled-entry"),
            )?
            .into();
            let what = found.first().map(|found| found.what.clone()).unwrap_or_default();
            Ok((found, format!("all three refused, over MQTT, AMQP and HTTPS; why: {what}")))
        });
        let [one, two, three] = retired.await?;
        Ok([vec![one], vec![two], vec![disenrolled, three]])
    }

    fn evidence(
        &self,
        stage: Stage<'_>,
        first_day: FirstDay,
        desired: DesiredEvidence,
        refusals: [Vec<RefusalEvidence>; 3],
    ) -> Evidence {
        let FirstDay { provisioned, messages, twins } = first_day;
        let shown = provisioned.into_iter().zip(messages).zip(twins).zip(refusals);
        let device = |(((provisioned, messages), twin), refusals)| {
            let Provisioned { registration, protocol } = provisioned;
            let Registration { device_id, operation_id, assigned_hub, etag: registration_etag, .. } = registration;
            let changed = device_id == desired.device_id;
            let twin = match changed {
                true => TwinEvidence {
                    desired_version: desired.desired_version,
                    reported_version: desired.reported_version,
                },
                false => twin,
            };
            DeviceEvidence {
                device_id,
                protocol,
                operation_id,
                assigned_hub,
                registration_etag,
                messages,
                twin,
                refusals,
            }
        };
        Evidence {
            devices: shown.map(device).collect(),
            seconds: rounded(self.progress.elapsed()),
            provisioning_service: stage.service,
            hub: stage.hub,
            certificate: stage.certificate,
            enrollment_group: stage.group,
            desired,
            kept: None,
            steps: self.progress.ticks(),
        }
    }
}

/// Lets `device` try to come back, and asks why it was refused: the wire says the same to all, the decision the truth.
async fn refusal(operator: &Operator<'_>, device: &Device, place: &Place, cause: &str) -> Result<RefusalEvidence> {
    let refused = device.be_refused(place).await?;
    let (status, code) = UNAUTHORIZED;
    ensure!(refused.status == status && refused.code == Some(code), "{} was told: {refused}", device.name);
    let found = operator.why(&refused).await?;
    ensure!(found.cause == cause, "{} was refused as {}, not {cause}: {}", device.name, found.cause, found.what);
    Ok(found)
}
