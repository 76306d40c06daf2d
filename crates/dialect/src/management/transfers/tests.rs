use domain::clock::UnixTime;
use domain::file::FileName;
use domain::ids::JobId;
use domain::operation::{ErrorKind, Reply};
use domain::transfer::{Container, TransferStatus};

use super::*;
use crate::http::Target;
use crate::management::arm;

const HUB: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Devices/IotHubs/hub";
const IN: &str = "https://host/in?sig=secret";
const OUT: &str = "https://host/out?sig=secret";

fn send(line: &str, body: &Value) -> Result<Ask, ErrorKind> {
    let (method, path) = line.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(format!("{HUB}/{path}?api-version=2023-06-30"));
    let request = request.body(Bytes::from(body.to_string())).unwrap();
    let target = Target::parse(request.uri()).unwrap();
    match arm::decode(&request, &target) {
        Ok((Operation::ManagedTransfer(Managed { place, hub, ask }), _)) => {
            assert_eq!((place.group.as_deref(), hub.as_str()), (Some("g"), "hub"), "{line}");
            Ok(ask)
        }
        Ok(other) => panic!("{line}: {other:?}"),
        Err(refused) => Err(refused.kind),
    }
}

fn draft(line: &str, body: &Value) -> Result<Draft, ErrorKind> {
    match send(line, body)? {
        Ask::Create(draft) => Ok(*draft),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn what_clients_ask_for_is_read_and_the_rest_refused() {
    let [input, output] = [IN, OUT].map(|text| Container::parse(text).unwrap());
    let file = |name: &str| FileName::parse(name).unwrap();
    let export = |name: &str, without_keys, configurations: Option<&str>| Draft {
        work: Work::Export { file: file(name), without_keys },
        configurations: configurations.map(file),
        output: output.clone(),
    };
    let import = |name: &str, configurations: Option<&str>| Draft {
        work: Work::Import { input: input.clone(), file: file(name) },
        configurations: configurations.map(file),
        output: output.clone(),
    };
    let cases = [
        (
            "POST exportDevices",
            json!({ "exportBlobContainerUri": OUT, "excludeKeys": true }),
            Ok(export("devices.txt", true, None)),
        ),
        (
            "POST ExportDevices",
            json!({
                "exportBlobContainerUri": OUT, "excludeKeys": false, "exportBlobName": "a.txt",
                "authenticationType": "keyBased", "includeConfigurations": true, "configurationsBlobName": "c.txt",
            }),
            Ok(export("a.txt", false, Some("c.txt"))),
        ),
        (
            "POST importDevices",
            json!({ "inputBlobContainerUri": IN, "outputBlobContainerUri": OUT, "outputBlobName": "" }),
            Ok(import("devices.txt", None)),
        ),
        (
            "POST importDevices",
            json!({
                "inputBlobContainerUri": IN, "outputBlobContainerUri": OUT, "inputBlobName": "a.txt",
                "includeConfigurations": true,
            }),
            Ok(import("a.txt", Some("configurations.txt"))),
        ),
        ("POST exportDevices", json!({ "excludeKeys": true }), Err(ErrorKind::InvalidBody)),
        ("POST exportDevices", json!([]), Err(ErrorKind::InvalidBody)),
        (
            "POST exportDevices",
            json!({ "exportBlobContainerUri": OUT, "excludeKeys": "no" }),
            Err(ErrorKind::InvalidBody),
        ),
        ("POST exportDevices", json!({ "exportBlobContainerUri": "host" }), Err(ErrorKind::InvalidContainer)),
        (
            "POST exportDevices",
            json!({ "exportBlobContainerUri": OUT, "authenticationType": "identityBased" }),
            Err(ErrorKind::InvalidArgument),
        ),
        ("POST importDevices", json!({ "inputBlobContainerUri": IN }), Err(ErrorKind::InvalidBody)),
        (
            "POST importDevices",
            json!({ "inputBlobContainerUri": IN, "outputBlobContainerUri": OUT, "inputBlobName": "../x" }),
            Err(ErrorKind::InvalidArgument),
        ),
        ("GET exportDevices", json!({}), Err(ErrorKind::NotSupported)),
        ("DELETE jobs/j", json!({}), Err(ErrorKind::NotSupported)),
        ("GET jobs/a%20b", json!({}), Err(ErrorKind::InvalidArgument)),
        ("GET jobs/a/b", json!({}), Err(ErrorKind::ResourceNotFound)),
    ];
    for (line, body, expected) in cases {
        assert_eq!(draft(line, &body), expected, "{line} {body}");
    }
    assert!(matches!(send("GET jobs", &Value::Null), Ok(Ask::List)));
    assert!(matches!(send("GET Jobs/j", &Value::Null), Ok(Ask::Find(id)) if id.as_str() == "j"));
}

#[test]
fn a_job_is_shown_as_management_clients_read_it() {
    let body = json!({ "inputBlobContainerUri": IN, "outputBlobContainerUri": OUT });
    let transfer = Transfer {
        id: JobId::parse("j").unwrap(),
        draft: draft("POST importDevices", &body).unwrap(),
        created_at: UnixTime::from_seconds(1_706_702_400),
        started_at: None,
        ended_at: Some(UnixTime::from_seconds(1_706_702_401)),
        status: TransferStatus::Failed,
        progress: 40,
        failure: Some("no".to_owned()),
    };
    let expected = json!({
        "jobId": "j", "startTimeUtc": "Wed, 31 Jan 2024 12:00:00 GMT", "endTimeUtc": "Wed, 31 Jan 2024 12:00:01 GMT",
        "type": "import", "status": "failed", "failureReason": "no",
    });
    let shown = |answer| -> Value {
        let response = arm::encode(Ok(Reply::Transfer(answer)), &arm::Asked::Other);
        serde_json::from_slice(response.body()).unwrap()
    };
    assert_eq!(shown(Answer::Transfer(Box::new(transfer.clone()))), expected);
    assert_eq!(shown(Answer::Transfers(vec![transfer])), json!({ "value": [expected], "nextLink": null }));
}
