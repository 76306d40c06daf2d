//! Holds what was read to what was sent: nothing acknowledged is missing, nothing is there twice, and each device's
//! messages stand in their order, in one partition. Start at [`check`].

use std::collections::BTreeMap;

use domain::operation::Transport;

use super::Everything;
use super::device::{Log, body};
use super::reader::Read;
use crate::verify::{Findings, LOST};

#[cfg(test)]
mod tests;

/// Looks for everything that was `sent` in what was read of each of the `partitions`.
pub fn check(sent: &Everything, partitions: &BTreeMap<u16, Vec<Read>>) -> Findings {
    let mut findings = Findings::default();
    let mut found: BTreeMap<&str, Found<'_>> =
        sent.iter().map(|(device, log)| (device.as_str(), Found::nothing(log))).collect();
    for (&partition, messages) in partitions {
        check_places(partition, messages, &mut findings);
        for message in messages {
            match found.get_mut(message.device.as_str()) {
                Some(found) => found.take(partition, message, &mut findings),
                None => findings.problem(format!("{:?} is of {}, who sent nothing", message.body, message.device)),
            }
        }
    }
    for (device, found) in found {
        found.judge(device, &mut findings);
    }
    findings
}

/// The numbers and the offsets of a partition rise with each message.
fn check_places(partition: u16, messages: &[Read], findings: &mut Findings) {
    for (message, next) in messages.iter().zip(messages.iter().skip(1)) {
        if next.sequence <= message.sequence || next.offset <= message.offset {
            findings.problem(format!("partition {partition}: {message:?} is followed by {next:?}"));
        }
    }
}

/// What was found of what one device sent.
struct Found<'a> {
    log: &'a Log,
    /// How often what was sent at this place is there.
    times: Vec<usize>,
    /// The partition and the place of the last message.
    last: Option<(u16, usize)>,
}

impl<'a> Found<'a> {
    fn nothing(log: &'a Log) -> Self {
        Self { log, times: vec![0; log.is_acknowledged.len()], last: None }
    }

    fn take(&mut self, partition: u16, message: &Read, findings: &mut Findings) {
        let Read { device, body: text, .. } = message;
        let place = text.rsplit(' ').next().and_then(|place| place.parse::<usize>().ok());
        let place = place.filter(|place| *text == body(device, *place));
        let Some((place, times)) = place.and_then(|place| Some((place, self.times.get_mut(place)?))) else {
            return findings.problem(format!("{device} never sent {text:?}"));
        };
        *times += 1;
        if let Some((other, before)) = self.last {
            if other != partition {
                findings.problem(format!("{device} is in the partitions {other} and {partition}"));
            }
            if place < before {
                findings.problem(format!("{device}: what was sent at {place} stands behind {before}"));
            }
        }
        self.last = Some((partition, place));
    }

    fn judge(self, device: &str, findings: &mut Findings) {
        for (place, (times, is_acknowledged)) in self.times.iter().zip(&self.log.is_acknowledged).enumerate() {
            if *times > 1 {
                findings.problem(format!("{:?} was sent once and is there {times} times", body(device, place)));
            }
            match (is_acknowledged, times) {
                (true, 0) => {
                    findings.problem(format!("{:?} {LOST}", body(device, place)));
                }
                (false, 1..) => findings.done_unheard += 1,
                (true, 1..) | (false, 0) => {}
            }
        }
        *findings.acknowledged.entry(kind(self.log.transport)).or_default() += self.log.acknowledged();
    }
}

/// What to call many messages that came that way.
const fn kind(transport: Transport) -> &'static str {
    match transport {
        Transport::Https => "messages over HTTPS",
        Transport::Mqtt => "messages over MQTT",
        Transport::MqttWebSocket => "messages over MQTT-WS",
        Transport::Amqp => "messages over AMQP",
        Transport::AmqpWebSocket => "messages over AMQP-WS",
    }
}
