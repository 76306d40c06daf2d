//! Every refusal of a device's credential, over HTTPS, MQTT and MQTT over WebSocket: the answers are the same to the last
//! header and member, but for the tracking ID and the time, so that nobody learns from them what is enrolled, nor why it
//! was refused (`contract/dps-device.md` 2.8 and 3.7).
//!
//! Start at [`refused_credentials_are_told_apart_by_nothing_over_https`].
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod cases;
mod line;

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use crate::cases::Place;
use crate::line::{Answer, Transport};

/// What is asked with each credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// To be registered.
    Register,
    /// How an operation goes that there is not.
    Poll,
    /// What is recorded. There is no such question over MQTT.
    LookUp,
}

#[tokio::test]
async fn refused_credentials_are_told_apart_by_nothing_over_https() {
    let answers = ask_all(Transport::Https, &[Question::Register, Question::Poll, Question::LookUp]).await;
    let length = answers.first().unwrap().1.headers["content-length"].clone();
    let expected = [
        ("content-length", &*length),
        ("content-type", "application/json; charset=utf-8"),
        ("strict-transport-security", "max-age=31536000"),
        ("x-ms-error-code", "401002"),
        ("x-ms-request-id", "TRACKING"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (case, answer) in &answers {
        assert_eq!(answer.status, "401", "{case}");
        assert_eq!(answer.headers, BTreeMap::from(expected.clone()), "{case}");
    }
    all_the_same(&answers);
}

#[tokio::test]
async fn refused_credentials_are_told_apart_by_nothing_over_mqtt() {
    over_mqtt(Transport::Mqtt).await;
}

#[tokio::test]
async fn refused_credentials_are_told_apart_by_nothing_over_mqtt_over_websocket() {
    over_mqtt(Transport::WebSocket).await;
}

async fn over_mqtt(transport: Transport) {
    let mut answers = ask_all(transport, &[Question::Register, Question::Poll]).await;
    // What no request can follow is refused at once, and the enrolled get the same as the others.
    let at_connect: Vec<_> = answers.extract_if(.., |(_, answer)| answer.status.starts_with("CONNACK")).collect();
    for (case, answer) in &at_connect {
        let expected = if case.contains("no credential") { "CONNACK 5, closed" } else { "CONNACK 4, closed" };
        assert_eq!(answer, &Answer { status: expected.to_owned(), ..Answer::default() }, "{case}");
    }
    let unanswered: HashSet<_> = at_connect.iter().map(|(case, _)| case.split(": ").next().unwrap()).collect();
    let expected: HashSet<_> = cases::REFUSED_AT_CONNECT.iter().copied().collect();
    assert_eq!(unanswered, expected, "these and no others");
    for (case, answer) in &answers {
        let topic = "PUBLISH $dps/registrations/res/401/?$rid=1 at least once, puback, goes on";
        assert_eq!(answer.status, topic, "{case}");
    }
    all_the_same(&answers);
}

/// Asks every question with every credential; gives what came, by case and question.
async fn ask_all(transport: Transport, questions: &[Question]) -> Vec<(String, Answer)> {
    let place = Place::make().await;
    let cases = place.cases();
    for good in place.good() {
        let answer = line::ask(&place, &good, Question::Register, transport).await;
        let accepted = match transport {
            Transport::Https => "202",
            _ => "PUBLISH $dps/registrations/res/202/?$rid=1&retry-after=1 at least once, puback, goes on",
        };
        assert_eq!(answer.status, accepted, "{}: {:?}", good.name, answer.body);
    }
    let mut answers = Vec::new();
    for case in &cases {
        for question in questions {
            let answer = line::ask(&place, case, *question, transport).await;
            answers.push((format!("{}: {question:?}", case.name), answer));
        }
    }
    place.leave().await;
    let ids: HashSet<_> = answers.iter().filter_map(|(_, answer)| answer.tracking_id.clone()).collect();
    let refused = answers.iter().filter(|(_, answer)| !answer.status.starts_with("CONNACK")).count();
    assert_eq!(ids.len(), refused, "each answer has a tracking ID of its own");
    for (_, answer) in &mut answers {
        answer.tracking_id = None;
    }
    answers
}

/// Every answer is the first one, and that is what the contract says.
fn all_the_same(answers: &[(String, Answer)]) {
    let (_, first) = answers.first().unwrap();
    let members = serde_json::json!({
        "errorCode": 401_002,
        "message": "Unauthorized",
        "timestampUtc": "TIME",
        "trackingId": "TRACKING",
    });
    let body: Value = serde_json::from_str(&first.body).unwrap();
    assert_eq!(body, members);
    for (case, answer) in answers {
        assert_eq!(answer, first, "{case}");
    }
}
