//! Devices that are called (`contract/hub-device.md 4.8`).
//!
//! A link on which a device is called is accepted only when the service knows of it: whoever was told that the device
//! listens may call it at once. Start at [`Devices::listens`].

use domain::operation::identity::IdentityName;
use domain::operation::session::{Ask, ConnectedDevice, Filter, QualityOfService, Subscriptions};
use domain::operation::{ErrorKind, Failure, Lane, Operation, Reply, method};
use proto::amqp::{Delivery, DeliveryState, LinkId, Message};

use super::device::{Kind, Listening};
use super::{Devices, Waiting, settle};
use crate::amqp::Port;
use crate::error::{self, Refused};
use crate::hub::method_amqp::MethodResult;
use crate::session::AskId;

impl Devices {
    /// Whether calls come to a device; has the service told that they shall.
    pub(super) fn listens(&mut self, identity: &IdentityName, port: &mut Port<'_>) -> bool {
        let Some(device) = self.present.get_mut(identity) else { return false };
        if device.listening == Listening::No
            && let Some(seat) = device.seat.clone()
        {
            let mut subscriptions = Subscriptions::default();
            subscriptions.insert(Filter::Methods, QualityOfService::AtMostOnce);
            let ask = port.ask(subscribe(seat, subscriptions), Lane::Serial);
            device.listening = Listening::Asked(ask);
            self.wait_for(ask, Waiting::Listening(identity.clone()));
            return false;
        }
        device.listening == Listening::Yes
    }

    /// Tells a device the calls for it. Callers whose request is longer than it takes hear so.
    pub(super) fn call(&mut self, identity: &IdentityName, port: &mut Port<'_>) {
        let Some(device) = self.present.get_mut(identity) else { return };
        let Some(seat) = device.seat.clone() else { return };
        for (request, reason) in device.send_requests(port.connection) {
            let respond = method::Ask::Respond { device: seat.clone(), request, response: Err(reason) };
            let ask = port.ask(Operation::Method(respond), Lane::Serial);
            self.wait_for(ask, Waiting::Nothing);
        }
    }

    /// The service knows that a device listens, or cannot take note of it.
    pub(super) fn listening(
        &mut self,
        identity: &IdentityName,
        ask: AskId,
        reply: Result<Reply, Failure>,
        port: &mut Port<'_>,
    ) {
        // It may have ceased meanwhile, and begun again.
        let Some(device) = self.present.get_mut(identity).filter(|device| device.listening == Listening::Asked(ask))
        else {
            return;
        };
        match reply {
            Ok(_) => {
                device.listening = Listening::Yes;
                self.accept_arrived(identity, port);
            }
            Err(failure) => {
                device.listening = Listening::No;
                let refused = device
                    .arriving
                    .extract_if(.., |(link, _)| self.links.get(link).is_some_and(|owner| owner.kind == Kind::CALLS));
                let refused: Vec<LinkId> = refused.map(|(link, _)| link).collect();
                for link in refused {
                    self.links.remove(&link);
                    port.refuse_link(link, &identity.to_string(), error::hub_amqp(&failure));
                }
                self.let_go(identity, port);
            }
        }
    }

    /// Has no more calls come to a device that has no link for them, nor is about to have one.
    pub(super) fn cease_if_deaf(&mut self, identity: &IdentityName, port: &mut Port<'_>) {
        let links = &self.links;
        let Some(device) = self.present.get_mut(identity) else { return };
        let is_arriving = |link: &LinkId| links.get(link).is_some_and(|owner| owner.kind == Kind::CALLS);
        if device.listening == Listening::No
            || device.link(Kind::CALLS).is_some()
            || device.arriving.iter().any(|(link, _)| is_arriving(link))
        {
            return;
        }
        device.listening = Listening::No;
        device.requests.clear();
        if let Some(seat) = device.seat.clone() {
            let ask = port.ask(subscribe(seat, Subscriptions::default()), Lane::Serial);
            self.wait_for(ask, Waiting::Nothing);
        }
    }

    /// Takes what a device answers to a call.
    pub(super) fn take_method_result(&mut self, device: ConnectedDevice, delivery: &Delivery, port: &mut Port<'_>) {
        let result = match Message::decode(&delivery.payload) {
            Ok(message) => MethodResult::parse(&message),
            Err(malformed) => Err(Refused::new(ErrorKind::InvalidArgument, malformed.to_string())),
        };
        match result {
            Ok(MethodResult { request: Some(request), response }) => {
                let ask = method::Ask::Respond { device, request, response };
                let ask = port.ask(Operation::Method(ask), Lane::Serial);
                let answered = (!delivery.is_settled).then_some(delivery.id);
                let bytes = delivery.payload.len();
                self.wait_for(ask, Waiting::MethodResult { link: delivery.link, delivery: answered, bytes });
            }
            // Not an ID that was ever given out (`contract/hub-device.md 4.8`).
            Ok(MethodResult { request: None, .. }) => {
                settle(delivery, DeliveryState::Accepted, port);
                self.use_credit(delivery.link, port);
            }
            Err(refused) => {
                let failure = port.refuse(refused.kind, refused.public);
                settle(delivery, DeliveryState::rejected(error::hub_amqp(&failure)), port);
                self.use_credit(delivery.link, port);
            }
        }
    }
}

/// The subscriptions of AMQP are its links, and end with them: nothing is kept.
fn subscribe(device: ConnectedDevice, subscriptions: Subscriptions) -> Operation {
    Operation::Session(Ask::Subscribe { device, subscriptions, is_kept: false })
}
