//! Models that devices announce by their links.

use domain::operation::session;

use super::*;

const MODEL: &str = "com.microsoft:model-id";

#[test]
fn devices_of_a_connection_announce_a_model_each() {
    let mut client = Client::open();
    for (device, model) in [("a", Some("dtmi:x;1")), ("b", Some("dtmi:x;2")), ("c", None)] {
        let properties: Vec<_> = model.iter().map(|model| (MODEL, *model)).collect();
        let address = format!("/devices/{device}/messages/events");
        client.attach_with(device, Role::Sender, &address, &properties);
        let ask = client.ask();
        let Operation::Session(Ask::Connect(connect)) = &ask.operation else { panic!("{ask:?}") };
        assert_eq!(connect.model_id.as_deref(), model, "{device}");
        client.reply(&ask, Ok(connected(&seat(device, 1))));
        client.noticed();
    }
}

#[test]
fn a_later_link_announces_a_model_and_waits_until_it_is_known() {
    let (mut client, telemetry_link, seat) = Client::telemetry_ready();
    let pair = |name, model| [(MODEL, model), ("com.microsoft:channel-correlation-id", name)];
    client.attach_with("asks", Role::Sender, "/devices/dev-1/twin", &pair("twin:1", "dtmi:x;1"));
    let ask = client.ask();
    assert_eq!((show(&ask), client.noticed()), ("announce dtmi:x;1 of dev-1".to_owned(), vec![]));
    client.attach_with("answers", Role::Receiver, "/devices/dev-1/twin", &pair("twin:1", "dtmi:x;1"));
    assert_eq!((asked(&mut client), client.noticed()), (vec![], vec![]), "it waits for the one before");
    client.reply(&ask, Ok(Reply::Session(session::Answer::Announced(seat.announcing("dtmi:x;1")))));
    assert_eq!(client.noticed(), ["attached", "attached"]);

    client.send(telemetry_link, 0, &telemetry("a"));
    let ask = client.ask();
    let Operation::Telemetry(telemetry::Ask::Send { device, .. }) = &ask.operation else { panic!("{ask:?}") };
    assert_eq!(device.model_id.as_deref(), Some("dtmi:x;1"));
    // What the service tells is for the seat as it was given.
    client.session.handle_push(&seat, Push::CutOff(CutOff::Rekeyed), client.now);
    assert_eq!(client.noticed().len(), 3);
}

#[test]
fn a_model_that_is_none_ends_the_links_of_its_device_alone() {
    let (mut client, _, _) = Client::telemetry_ready();
    client.attach("other", Role::Sender, "/devices/dev-2/messages/events");
    client.answer("connect dev-2 at 127.0.0.2", Ok(connected(&seat("dev-2", 2))));
    client.attach_with("asks", Role::Sender, "/devices/dev-1/twin", &[(MODEL, "nothing")]);
    client.noticed();
    client.answer("announce nothing of dev-1", Err(failure(ErrorKind::InvalidArgument)));
    let ended = "detached com.microsoft:argument-error";
    assert_eq!(client.noticed(), [ended, "refused", ended]);
    assert_eq!(asked(&mut client), ["disconnect dev-1"]);
}
