"""What azure-iot-device sends is what `muster events monitor` shows, while it comes and afterwards."""

import json
import subprocess
import threading
from importlib.metadata import version

import pytest
from azure.iot.device import Message
from azure.iot.device.exceptions import ClientError
from test_hub import connect, create

DEVICE = {"client": "azure-iot-device", "version": version("azure-iot-device"), "credential": "symmetric key"}
TRANSPORTS = ["mqtt", "mqtt-ws"]
ENDS_S = 60


def events(muster, *arguments: str) -> list[dict]:
    """Everything that the monitor shows until it ends by itself."""
    done = muster.run("events", "monitor", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.shows(**DEVICE, feature="telemetry with system and application properties, as the monitor shows it live")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_monitor_shows_what_a_device_sends_while_it_comes(muster, transport):
    client = connect(muster, "dev-1", create(muster, "dev-1"), transport)
    client.send_message("before")
    watching = subprocess.Popen(
        [muster.binary, "--data", str(muster.folder), "--output", "json", "events", "monitor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "watching" in watching.stderr.readline()
    message = Message(json.dumps({"temperature": 50.123}), message_id="m-1", content_encoding="utf-8")
    message.content_type = "application/json"
    message.correlation_id = "c/1"
    message.custom_properties["alert"] = "no & yes/maybe"
    message.custom_properties["ünï"] = "ç=d"
    client.send_message(message)
    event = json.loads(watching.stdout.readline())
    watching.terminate()
    watching.communicate()
    assert (event["deviceId"], event["body"]) == ("dev-1", {"temperature": 50.123})
    assert event["properties"] == {"alert": "no & yes/maybe", "ünï": "ç=d"}
    system = event["systemProperties"]
    assert (system["messageId"], system["correlationId"]) == ("m-1", "c/1")
    assert (system["contentType"], system["contentEncoding"]) == ("application/json", "utf-8")
    assert event["annotations"]["iothub-connection-device-id"] == "dev-1"
    assert json.loads(event["annotations"]["iothub-connection-auth-method"])["type"] == "sas"
    client.shutdown()


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="telemetry is kept in order, and across a server restart")
def test_acknowledged_telemetry_is_there_after_a_restart_in_order(muster):
    names = ["dev-1", "dev-2"]
    first, second = (connect(muster, name, create(muster, name)) for name in names)
    for number in range(20):
        first.send_message(f"first {number}")
        second.send_message(f"second {number}")
    first.shutdown()
    second.shutdown()
    muster.restart()
    shown = events(muster, "--from", "start", "--device", "dev-1", "--count", "20")
    assert [event["body"] for event in shown] == [f"first {number}" for number in range(20)]
    sequences = [event["sequenceNumber"] for event in shown]
    assert sequences == sorted(set(sequences))
    everything = events(muster, "--from", "start", "--count", "40")
    of_second = [event["body"] for event in everything if event["deviceId"] == "dev-2"]
    assert of_second == [f"second {number}" for number in range(20)]
    told = muster.run("events", "monitor", "--from", "start", "--count", "41", "--timeout", "1")
    assert told.returncode == 1 and "only 40 of 41" in told.stderr
    assert muster.run("events", "monitor", "--hub", "nowhere").returncode != 0


class Sender:
    """A device that sends one message after another; its application tries again whatever was not acknowledged."""

    def __init__(self, muster, name: str, transport: str):
        self.client = connect(muster, name, create(muster, name), transport)
        self.sent, self.changed, self.over = [], threading.Condition(), threading.Event()
        self.client.on_connection_state_change = self.wake
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def wake(self):
        with self.changed:
            self.changed.notify_all()

    def run(self):
        for number in range(1_000_000):
            if self.over.is_set():
                return
            try:
                self.client.send_message(str(number))
            except ClientError:
                # The client connects again by itself.
                with self.changed:
                    self.changed.wait_for(lambda: self.client.connected or self.over.is_set(), 60)
                continue
            self.sent.append(str(number))
            self.wake()

    def await_more(self, count: int) -> bool:
        with self.changed:
            wanted = len(self.sent) + count
            return self.changed.wait_for(lambda: len(self.sent) >= wanted, 60)

    def end(self):
        self.over.set()
        self.wake()
        self.thread.join(ENDS_S)
        assert not self.thread.is_alive(), "the client keeps a message, neither sent nor refused"
        self.client.shutdown()


@pytest.mark.shows(**DEVICE, feature="telemetry under load, acknowledged before SIGTERM and after the restart")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_was_acknowledged_while_the_server_ended_is_there(muster, transport):
    senders = {name: Sender(muster, name, transport) for name in ["dev-1", "dev-2", "dev-3", "dev-4"]}
    try:
        assert all(sender.await_more(50) for sender in senders.values()), muster.log
        muster.restart()
        assert all(sender.await_more(50) for sender in senders.values()), muster.log
    finally:
        for sender in senders.values():
            sender.end()
    for name, sender in senders.items():
        # What was not acknowledged may be there too, so that their number is not known.
        shown = muster.run("events", "monitor", "--from", "start", "--device", name, "--timeout", "1").stdout
        assert {json.loads(line)["body"] for line in shown.splitlines()} >= set(sender.sent), muster.log
