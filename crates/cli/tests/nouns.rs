//! Every noun against a server that keeps everything in memory: what each verb answers, how it exits, and that no key is
//! printed to anybody who did not ask.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A server, and where it says that it is.
struct Running {
    child: Child,
    told: Value,
}

impl Running {
    /// Its log goes where nothing can be written, as on a full disk: that must not matter to anybody.
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(["serve", "--memory", "--output", "json"])
            .args(["--https-port", "0", "--mqtts-port", "0", "--amqps-port", "0", "--admin-port", "0"])
            .stdout(Stdio::piped())
            .stderr(File::options().write(true).open("/dev/full").expect("every Linux has it"))
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says where it is");
        Self { child, told: serde_json::from_str(&line).expect("JSON") }
    }

    /// Where a file lies that it has told of.
    fn path(&self, name: &str) -> &str {
        self.told.get(name).and_then(Value::as_str).expect("a path")
    }

    /// Runs a command; its words are separated by spaces.
    fn run(&self, words: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(words.split(' '))
            .env("MUSTER_ENDPOINTS", self.path("endpointsFile"))
            .env_remove("MUSTER_DATA")
            .output()
            .expect("the binary runs")
    }

    /// Runs a command that must succeed, and reads what it prints.
    fn ask(&self, words: &str) -> Value {
        let output = self.run(words);
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    /// Lets the server end, and expects that it does so cleanly and takes its files along.
    fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process")).expect("a process");
        kill_process(pid, Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
        let file = self.path("endpointsFile");
        assert!(!std::path::Path::new(file).exists(), "{file} is left behind");
    }
}

/// What each verb prints at a path, in the order of a life: made, seen, changed, removed. `{folder}` holds `root.pem`.
const LIVES: &[(&str, &str, &str)] = &[
    ("hub create hub2", "/name", "hub2"),
    ("hub list", "/1/name", "hub2"),
    ("hub update hub2 --retention-days 7", "/properties/eventHubEndpoints/events/retentionTimeInDays", "7"),
    ("hub show hub2", "/properties/eventHubEndpoints/events/retentionTimeInDays", "7"),
    ("hub consumer-group create audit --hub hub2", "/name", "audit"),
    ("hub consumer-group list --hub hub2", "/1/name", "audit"),
    ("hub consumer-group show AUDIT --hub hub2", "/properties/name", "audit"),
    ("hub consumer-group delete audit --hub hub2", "/deleted", "true"),
    ("hub consumer-group list --hub hub2", "/0/name", "$Default"),
    ("dps create dps2", "/name", "dps2"),
    ("dps list", "/1/name", "dps2"),
    ("dps update dps2 --allocation static", "/properties/allocationPolicy", "Static"),
    ("dps show dps2", "/properties/allocationPolicy", "Static"),
    ("linked-hub create --dps dps2 --hub hub2 --weight 3", "/linked", "true"),
    ("linked-hub list --dps dps2", "/0/allocationWeight", "3"),
    ("linked-hub update --dps dps2 --hub hub2 --weight 7", "/allocationWeight", "7"),
    ("linked-hub show --dps dps2 --hub hub2", "/allocationWeight", "7"),
    ("policy create reader --hub hub2 --rights RegistryRead", "/rights", "RegistryRead"),
    ("policy update reader --hub hub2 --rights ServiceConnect", "/rights", "ServiceConnect"),
    ("policy show reader --hub hub2", "/rights", "ServiceConnect"),
    ("policy list --hub hub2", "/5/keyName", "reader"),
    (
        "endpoint create webhook hook --hub hub2 --url https://example.org/in --header X-Key:secret",
        "/headers/X-Key",
        "****",
    ),
    ("endpoint create nats subject --hub hub2 --url nats://localhost --subject a.b", "/kind", "nats"),
    ("endpoint create amqp queue --hub hub2 --connection-string amqps://u:p@localhost/q", "/name", "queue"),
    ("endpoint list --hub hub2", "/0/url", "https://example.org:443/in"),
    ("endpoint show queue --hub hub2", "/kind", "amqp"),
    ("route create hot --hub hub2 --endpoint hook --condition level='hot'", "/condition", "level='hot'"),
    ("route list --hub hub2", "/1/name", "$fallback"),
    ("route show hot --hub hub2", "/endpointNames/0", "hook"),
    ("route test --hub hub2 --property level=hot", "/0/name", "hot"),
    (
        "route test --hub hub2 --condition $body.a>1 --body {\"a\":2} --system contentType=application/json \
      --system contentEncoding=utf-8",
        "/result",
        "true",
    ),
    ("endpoint health --hub hub2", "/1/healthStatus", "unknown"),
    ("endpoint replay hook --hub hub2", "/replayed", "0"),
    ("endpoint purge hook --hub hub2", "/purged", "0"),
    ("route delete hot --hub hub2", "/deleted", "true"),
    ("endpoint delete hook --hub hub2", "/deleted", "true"),
    ("certificate create root --dps dps --path {folder}/root.pem", "/properties/isVerified", "false"),
    ("certificate list --dps dps", "/0/name", "root"),
    ("certificate show root --dps dps", "/properties/subject", "root"),
    ("certificate delete root --dps dps", "/deleted", "true"),
    ("enrollment create dev-1", "/registrationId", "dev-1"),
    ("enrollment list", "/0/registrationId", "dev-1"),
    ("enrollment update dev-1 --status disabled", "/provisioningStatus", "disabled"),
    ("enrollment show dev-1", "/provisioningStatus", "disabled"),
    ("enrollment-group create caves", "/enrollmentGroupId", "caves"),
    ("enrollment-group list", "/0/enrollmentGroupId", "caves"),
    ("enrollment-group update caves --status disabled", "/provisioningStatus", "disabled"),
    ("enrollment-group show caves", "/provisioningStatus", "disabled"),
    ("device create dev-1", "/deviceId", "dev-1"),
    ("device list", "/0/deviceId", "dev-1"),
    ("device update dev-1 --status disabled", "/status", "disabled"),
    ("device show dev-1", "/status", "disabled"),
    ("twin update dev-1 --desired {\"a\":1}", "/properties/desired/a", "1"),
    ("twin replace dev-1 --tags {\"b\":2}", "/tags/b", "2"),
    ("twin show dev-1", "/tags/b", "2"),
    ("twin show dev-1", "/modelId", ""),
    ("device show dev-1", "/modelId", ""),
    ("digital-twin update dev-1 --patch [{\"op\":\"add\",\"path\":\"/c/p\",\"value\":7}]", "/accepted", "true"),
    ("digital-twin show dev-1", "/c/$metadata/p/desiredValue", "7"),
    // Words are separated by spaces, and those of a query by anything else.
    ("query SELECT\t*\tFROM\tdevices\tWHERE\ttags.b=2", "/0/deviceId", "dev-1"),
    ("query SELECT\tCOUNT()\tAS\tn\tFROM\tdevices --hub hub", "/0/n", "1"),
    ("message send dev-1 hello --message-id m1 --ack full --property a=b", "/messageId", "m1"),
    ("c2d send dev-1 again --message-id m2", "/messageId", "m2"),
    ("device show dev-1", "/cloudToDeviceMessageCount", "2"),
    ("message purge dev-1", "/totalMessagesPurged", "2"),
    ("message feedback", "/0/statusCode", "Purged"),
    (
        "configuration create c1 --content {\"deviceContent\":{\"properties.desired.x\":1}} --target tags.b=2 --priority 5",
        "/content/deviceContent/properties.desired.x",
        "1",
    ),
    ("configuration update c1 --priority -1 --metric m=SELECT\tdeviceId\tFROM\tdevices", "/metrics/results/m", "1"),
    ("configuration show c1", "/priority", "-1"),
    ("configuration list", "/0/id", "c1"),
    ("configuration delete c1", "/deleted", "true"),
    ("job schedule j1 --where tags.b=2 --desired {\"x\":1} --start 2099-01-01T00:00:00Z", "/status", "scheduled"),
    (
        "job schedule j2 --where * --method reboot --payload 1 --start 2099-01-01T00:00:00Z",
        "/type",
        "scheduleDeviceMethod",
    ),
    ("job show j1", "/updateTwin/properties/desired/x", "1"),
    ("job list --type twin --status scheduled", "/0/jobId", "j1"),
    ("job cancel j1", "/status", "cancelled"),
    ("file list --hub hub", "", "[]"),
    ("file notifications", "", "[]"),
    ("device delete dev-1", "/deleted", "true"),
    ("enrollment delete dev-1", "/deleted", "true"),
    ("enrollment-group delete caves", "/deleted", "true"),
    ("linked-hub delete --dps dps2 --hub hub2", "/deleted", "true"),
    ("policy delete reader --hub hub2", "/deleted", "true"),
    ("dps delete dps2", "/deleted", "true"),
    (
        "hub update hub2 --upload-container uploads --upload-notifications true",
        "/properties/storageEndpoints/$default/containerName",
        "uploads",
    ),
    ("hub show hub2", "/properties/enableFileUploadNotifications", "true"),
    ("job list --type import --hub hub2", "", "[]"),
    ("job export --hub hub2 --name all.txt --without-keys", "/outputBlobName", "all.txt"),
    ("job list --type export --hub hub2", "/0/excludeKeysInExport", "true"),
    ("hub update hub --upload-container uploads", "/properties/storageEndpoints/$default/containerName", "uploads"),
    ("job import --name absent.txt", "/type", "import"),
    ("hub delete hub2", "/deleted", "true"),
];

/// What is not there, after the lives above.
const ABSENT: &[&str] = &[
    "hub show hub2",
    "dps show dps2",
    "linked-hub update --dps dps --hub hub2 --weight 2",
    "policy update reader --hub hub --rights RegistryRead",
    "policy delete reader --dps dps",
    "route show hot --hub hub",
    "route delete hot --hub hub",
    "endpoint show hook --hub hub",
    "endpoint delete hook --hub hub",
    "endpoint dead-letters hook --hub hub",
    "certificate show nothing --dps dps",
    "enrollment show dev-1",
    "enrollment-group show caves",
    "registration show dev-1",
    "device show dev-1",
    "device list --hub hub2",
    "twin show dev-1",
    "method invoke dev-1 reboot",
    "digital-twin show dev-1",
    "digital-twin update dev-1 --patch []",
    "digital-twin command dev-1 reboot --component c",
    "query SELECT\t*\tFROM\tdevices --hub hub2",
    "configuration show c1",
    "configuration list --hub hub2",
    "configuration apply dev-9 --content {\"modulesContent\":{\"m\":{\"properties.desired.x\":1}}}",
    "job show j3",
    "job cancel j3",
    "job list --hub hub2",
    "message send dev-1 hello",
    "message purge dev-1",
    "message feedback --hub hub2",
    "file list --hub hub2",
    "file get dev-1/a",
    "file delete dev-1/a",
    "file notifications --hub hub2",
    "why dev-1",
    "events monitor --hub hub2",
    "events monitor --hub hub --consumer-group audit",
    "hub consumer-group show audit --hub hub",
    "hub consumer-group list --hub hub2",
];

/// Creation is the asking for what was created.
fn asks_for_keys(words: &str) -> bool {
    words.contains(" create ")
}

/// The texts of every key in a document.
fn keys_in(document: &Value, found: &mut Vec<String>) {
    match document {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "primaryKey" || name == "secondaryKey" => found.push(text.clone()),
                    other => keys_in(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys_in(item, found)),
        _ => {}
    }
}

#[test]
fn every_noun_lives_and_no_key_is_printed_unasked() {
    let running = Running::start();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().to_str().expect("text");
    running.ask(&format!("ca root root --out {folder}"));
    let (mut keys, mut printed) = (Vec::new(), String::new());
    for (words, path, expected) in LIVES {
        let words = words.replace("{folder}", folder);
        let answer = running.ask(&words);
        let found = answer.pointer(path).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        assert_eq!(found.as_deref(), Some(*expected), "{words}: {answer:#}");
        match asks_for_keys(&words) {
            true => keys_in(&answer, &mut keys),
            false => printed += &answer.to_string(),
        }
        if ["list", "show"].iter().any(|verb| words.split(' ').skip(1).take(2).any(|word| word == *verb)) {
            let table = running.run(&format!("{words} --output table"));
            assert!(table.status.success() && !table.stdout.is_empty(), "{words}");
            printed += &String::from_utf8_lossy(&table.stdout);
        }
    }
    keys_in(&running.ask("--show-keys policy list --hub hub"), &mut keys);
    keys_in(&running.ask("--show-keys policy list --dps dps"), &mut keys);
    assert!(keys.len() > 10 && keys.iter().all(|key| key.len() > 20), "{keys:?}");
    for key in &keys {
        assert!(!printed.contains(key.as_str()), "a key was printed to somebody who did not ask");
    }
    for words in ABSENT {
        let output = running.run(words);
        assert_eq!(output.status.code(), Some(3), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    }
    running.stop();
}

#[test]
fn a_file_of_a_server_that_is_gone_is_told_from_a_running_one() {
    let running = Running::start();
    let file = running.path("endpointsFile");
    let kept = tempfile::NamedTempFile::new().expect("a file");
    let text = std::fs::read_to_string(file).expect("it is told");
    std::fs::write(kept.path(), text.replace("\"pid\": ", "\"pid\": 1")).expect("a file");
    let stale = |path: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(["hub", "list"]).env("MUSTER_ENDPOINTS", path).env_remove("MUSTER_DATA");
        String::from_utf8(command.output().expect("the binary runs").stderr).expect("text")
    };
    assert!(stale(kept.path()).contains("answers"), "{}", stale(kept.path()));
    std::fs::write(kept.path(), text).expect("a file");
    let authority = tempfile::NamedTempFile::new().expect("a file");
    std::fs::copy(running.path("caFile"), authority.path()).expect("a copy");
    let text = std::fs::read_to_string(kept.path()).expect("a file");
    let own = running.path("caFile").to_owned();
    std::fs::write(kept.path(), text.replace(&own, authority.path().to_str().expect("text"))).expect("a file");
    running.stop();
    assert!(stale(kept.path()).contains("muster serve"), "{}", stale(kept.path()));
}

#[test]
fn every_problem_of_the_command_line_is_told_at_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["serve", "--memory", "--domain", "local", "--address", "here"])
        .output()
        .expect("the binary runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("listen.domain") && told.contains("listen.addresses"), "{told}");
}
