"""What azure-iot-device sends is what `muster events monitor` shows, while it comes and afterwards."""

import json
import queue
import signal
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest
from azure.iot.device import Message
from azure.iot.device.exceptions import ClientError
from test_hub import connect, create

DEVICE = {"client": "azure-iot-device", "version": version("azure-iot-device"), "credential": "symmetric key"}
TRANSPORTS = ["mqtt", "mqtt-ws"]
ENDS_S = 60
WAIT_S = 30


def events(muster, *arguments: str) -> list[dict]:
    """Everything that the monitor shows until it ends by itself."""
    done = muster.run("events", "monitor", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Monitor:
    """A monitor that runs in the background, and what it has shown."""

    def __init__(self, muster, *arguments: str):
        self.process = subprocess.Popen(
            [muster.binary, "--data", str(muster.folder), "--output", "json", "events", "monitor", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "watching" in self.process.stderr.readline()
        self.events = queue.Queue()
        self.threads = [threading.Thread(target=self.read), threading.Thread(target=self.process.stderr.read)]
        for thread in self.threads:
            thread.start()

    def read(self):
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def take(self) -> dict:
        """The next event; fails if none comes."""
        return self.events.get(timeout=WAIT_S)

    def end(self) -> list[dict]:
        """Ends it, and gives what was not taken."""
        self.process.terminate()
        for thread in self.threads:
            thread.join(WAIT_S)
        self.process.wait(WAIT_S)
        return list(self.events.queue)


@pytest.mark.shows(**DEVICE, feature="telemetry with system and application properties, as the monitor shows it live")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_monitor_shows_what_a_device_sends_while_it_comes(muster, transport):
    client = connect(muster, "dev-1", create(muster, "dev-1"), transport)
    client.send_message("before")
    watching = Monitor(muster)
    message = Message(json.dumps({"temperature": 50.123}), message_id="m-1", content_encoding="utf-8")
    message.content_type = "application/json"
    message.correlation_id = "c/1"
    message.custom_properties["alert"] = "no & yes/maybe"
    message.custom_properties["ünï"] = "ç=d"
    client.send_message(message)
    event = watching.take()
    assert watching.end() == []
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


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="the monitor begins at a time, and reads in a consumer group")
def test_the_monitor_begins_at_a_time_and_reads_in_a_consumer_group(muster):
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    client.send_message("before")
    (before,) = events(muster, "--from", "start", "--count", "1")
    later = datetime.fromisoformat(before["enqueuedTime"]) + timedelta(milliseconds=1)
    while datetime.now(UTC) < later:
        pass
    client.send_message("after")
    client.shutdown()
    since = later.isoformat(timespec="milliseconds")
    muster.command("hub", "consumer-group", "create", "audit", "--hub", "hub")
    for arguments in [["--since", since], ["--since", since, "--consumer-group", "AUDIT"]]:
        shown = events(muster, *arguments, "--timeout", "1")
        assert [event["body"] for event in shown] == ["after"]
    assert events(muster, "--since", before["enqueuedTime"], "--count", "1") == [before]
    assert muster.run("events", "monitor", "--since", "noon").returncode == 2
    told = muster.run("events", "monitor", "--consumer-group", "nobody")
    assert told.returncode == 3 and "consumer group" in told.stderr, told.stderr


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="the monitor shows what the built-in endpoint has, routes heeded")
def test_what_routes_lead_elsewhere_is_not_shown(muster):
    hub = ["--hub", "hub"]
    muster.command("endpoint", "create", "webhook", "hook", *hub, "--url", "https://example.org/in")
    muster.command("route", "create", "hot", *hub, "--endpoint", "hook", "--condition", "level = 'hot'")
    watching = Monitor(muster)
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    for body, level in [("cold 1", "cold"), ("hot", "hot"), ("cold 2", "cold")]:
        message = Message(body)
        message.custom_properties["level"] = level
        client.send_message(message)
    client.shutdown()
    assert [watching.take()["body"] for _ in range(2)] == ["cold 1", "cold 2"]
    assert watching.end() == []


@pytest.mark.shows(**DEVICE, transport="mqtt", feature="the monitor goes on after kill -9 and a restart of the server")
def test_the_monitor_goes_on_over_a_kill_and_a_restart(muster):
    watching = Monitor(muster)
    names = ["dev-1", "dev-2", "dev-3", "dev-4"]
    senders = {name: Sender(muster, name, "mqtt") for name in names}
    try:
        assert all(sender.await_more(50) for sender in senders.values()), muster.log
        muster.process.send_signal(signal.SIGKILL)
        muster.process.wait()
        muster.start()
        assert all(sender.await_more(50) for sender in senders.values()), muster.log
        muster.restart()
        assert all(sender.await_more(50) for sender in senders.values()), muster.log
    finally:
        for sender in senders.values():
            sender.end()
    kept = events(muster, "--from", "start", "--timeout", "2")
    assert {(event["deviceId"], event["body"]) for event in kept} >= {
        (name, body) for name, sender in senders.items() for body in sender.sent
    }
    shown = [watching.take() for _ in kept]
    assert watching.end() == []

    # The partitions come by turns; each of them in its order, whole and without repeats.
    def place(event):
        return event["partition"], event["sequenceNumber"]

    assert sorted(shown, key=place) == sorted(kept, key=place)
    for partition in {event["partition"] for event in kept}:
        numbers = [event["sequenceNumber"] for event in shown if event["partition"] == partition]
        assert numbers == sorted(set(numbers))


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
