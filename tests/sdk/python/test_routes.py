"""Routes: what devices send reaches the endpoints that the hub's routes lead to, whatever happens on the way."""

import base64
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
from azure.iot.device import Message
from receiver import PATIENCE_S, NatsServer, Reader, WebHook
from test_event_hubs import READER, read
from test_events import Sender
from test_hub import connect, create

DEVICE = {"client": "azure-iot-device", "version": version("azure-iot-device"), "credential": "symmetric key"}
SHOWS = {**DEVICE, "transport": "mqtt"}
SECRET = "Bearer a-secret-of-the-webhook"


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """Endpoints of these tests are on this machine, and are not waited for longer than need be."""
    monkeypatch.setenv("MUSTER_OUTBOUND_PRIVATE", "true")
    monkeypatch.setenv("MUSTER_OUTBOUND_PAUSE_MS", "20")
    monkeypatch.setenv("MUSTER_OUTBOUND_PAUSE_MAX_S", "1")
    monkeypatch.setenv("MUSTER_OUTBOUND_ATTEMPTS", "2")


@pytest.fixture
def hook(tmp_path):
    hook = WebHook(tmp_path)
    yield hook
    hook.close()


def lead_to(muster, hook: WebHook, *options: str, name: str = "hook"):
    """Makes an endpoint of a web server."""
    trust = ["--ca", hook.authority] if hook.tls else []
    return muster.command(
        *["endpoint", "create", "webhook", name, "--hub", "hub", "--url", hook.url, *trust, *options]
    )


def route(muster, name: str, endpoint: str, condition: str = "true"):
    return muster.command(
        *["route", "create", name, "--hub", "hub", "--endpoint", endpoint, "--condition", condition]
    )


def health(muster, name: str = "hook") -> dict:
    return next(one for one in muster.command("endpoint", "health", "--hub", "hub") if one["endpointId"] == name)


def send(client, body, **properties):
    message = Message(json.dumps(body), content_encoding="utf-8", content_type="application/json")
    message.custom_properties.update(properties)
    client.send_message(message)


def in_order_without_repeats(bodies: list) -> list:
    """What is left when a receiver drops what it has seen; it must come in the order sent."""
    seen = list(dict.fromkeys(bodies))
    assert seen == sorted(seen), "the order of a device is lost"
    return seen


@pytest.mark.shows(**SHOWS, feature="routes by property, body and twin to webhooks over TLS, the rest to the fallback")
def test_messages_go_where_routes_take_them(muster, hook, tmp_path):
    everything = WebHook(tmp_path, tls=False)
    made = lead_to(muster, hook, "--header", f"Authorization: {SECRET}")
    assert (made["headers"], made["mode"]) == ({"Authorization": "****"}, "single")
    lead_to(muster, everything, "--batch", name="all")
    route(muster, "hot", "hook", "level = 'critical' AND $body.temperature > 20")
    route(muster, "cave", "hook", "$twin.tags.site = 'cave' AND level = 'low'")
    route(muster, "all", "all")
    assert SECRET not in json.dumps(muster.command("hub", "show", "hub"))
    client, elsewhere = (connect(muster, name, create(muster, name)) for name in ["dev-1", "dev-2"])
    muster.command("twin", "update", "dev-1", "--tags", json.dumps({"site": "cave"}))
    send(elsewhere, {"temperature": 11}, level="low")
    system = {"$.schema": "schema/1", "$.on": "out", "$.diagid": "0af7651916cd43dd", "$.ctime": "2024-01-31T12:00:00Z"}
    send(client, {"temperature": 30}, level="critical", **system)
    send(client, {"temperature": 10}, level="critical")
    send(client, {"temperature": 12}, level="low")
    client.send_message("no JSON")
    assert everything.wait_for(lambda events: len(events) == 5), muster.log
    assert hook.wait_for(lambda events: len(events) == 2), (hook.events, health(muster), muster.log)
    assert hook.bodies("dev-1") == [{"temperature": 30}, {"temperature": 12}]
    path, headers, event = hook.requests[0]
    assert (path, headers["Authorization"]) == ("/in?from=hub", SECRET)
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert (event["specversion"], event["type"]) == ("1.0", "Microsoft.Devices.DeviceTelemetry")
    assert event["data"]["properties"] == {
        "level": "critical",
        "iothub-creation-time-utc": system["$.ctime"],
        "iothub-message-schema": system["$.schema"],
        "iothub-outputname": system["$.on"],
    }
    told = event["data"]["systemProperties"]
    assert told["iothub-connection-device-id"] == "dev-1"
    assert (told["iothub-creation-time-utc"], told["Diagnostic-Id"]) == (system["$.ctime"], system["$.diagid"])
    sequences = [int(event["sequence"]) for event in everything.events if event["subject"] == "devices/dev-1"]
    assert sequences == sorted(set(sequences))
    assert everything.requests[0][1]["Content-Type"].startswith("application/cloudevents-batch+json")
    assert everything.bodies("dev-1")[-1] == "bm8gSlNPTg=="
    assert health(muster)["healthStatus"] == "healthy"
    client.shutdown()
    elsewhere.shutdown()
    everything.close()


@pytest.mark.shows(**SHOWS, feature="routed telemetry over kill -9 and restart: at least once, in order of each device")
def test_every_acknowledged_message_arrives_over_a_kill(muster, hook):
    lead_to(muster, hook)
    route(muster, "all", "hook")
    senders = {name: Sender(muster, name, "mqtt") for name in ["dev-1", "dev-2", "dev-3", "dev-4"]}
    try:
        assert hook.wait_for(lambda events: len(events) > 100), muster.log
        muster.process.send_signal(signal.SIGKILL)
        muster.process.wait()
        muster.start()
        assert all(sender.await_more(50) for sender in senders.values()), muster.log
    finally:
        for sender in senders.values():
            sender.end()
    for name, sender in senders.items():
        assert hook.wait_for(lambda _, name=name, sender=sender: text(sender.sent[-1]) in hook.bodies(name)), muster.log
        # A message that was not acknowledged is sent again by its application, so that its number may come twice.
        numbers = [int(plain(body)) for body in hook.bodies(name)]
        arrived = in_order_without_repeats(numbers)
        assert set(arrived) >= {int(body) for body in sender.sent}


@pytest.mark.shows(**SHOWS, feature="routed telemetry over a restart in good order: exactly once, in order of each device")
def test_a_server_that_is_stopped_sends_nothing_twice(muster, hook):
    arrived, go_on = threading.Event(), threading.Event()

    def answer(_event) -> int:
        """Keeps the server waiting until it was asked to stop, so that it has something on its way then."""
        arrived.set()
        assert go_on.wait(PATIENCE_S)
        return 200

    hook.answer = answer
    lead_to(muster, hook)
    route(muster, "all", "hook")
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    for number in range(60):
        send(client, {"number": number})
    for _ in range(2):
        assert arrived.wait(PATIENCE_S), muster.log
        muster.log.lines.clear()
        muster.process.send_signal(signal.SIGTERM)
        assert muster.log.wait_for("draining"), muster.log
        go_on.set()
        assert muster.process.wait(PATIENCE_S) == 0, muster.log
        arrived.clear()
        go_on.clear()
        muster.start()
    go_on.set()
    assert hook.wait_for(lambda events: any(event["data"]["body"] == {"number": 59} for event in events)), muster.log
    assert hook.bodies("dev-1") == [{"number": number} for number in range(60)]
    client.shutdown()


@pytest.mark.shows(**READER, transport="amqp", feature="reads what routes and the fallback lead to the built-in endpoint")
def test_readers_of_the_built_in_endpoint_see_what_routes_lead_there(muster, hook):
    lead_to(muster, hook)
    route(muster, "hot", "hook", "level = 'critical'")
    route(muster, "both", "hook", "level = 'high'")
    route(muster, "events", "events", "level = 'high'")
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    for number, level in enumerate(["critical", "low", "high", "critical", "low"]):
        send(client, {"number": number}, level=level)
    assert hook.wait_for(lambda events: len(events) == 3), muster.log
    assert hook.bodies("dev-1") == [{"number": 0}, {"number": 2}, {"number": 3}]
    assert [event.body_as_json() for event in read(muster, 3)] == [{"number": 1}, {"number": 2}, {"number": 4}]
    client.shutdown()


def text(body: str) -> str:
    """A body that its sender says nothing of, as an event has it."""
    return base64.b64encode(body.encode()).decode()


def plain(body: str) -> str:
    return base64.b64decode(body).decode()


def resident_kib(muster) -> int:
    status = Path(f"/proc/{muster.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


@pytest.mark.shows(**SHOWS, feature="a dead endpoint holds no device up, and gets all once it lives")
def test_a_dead_endpoint_slows_nobody_and_costs_no_memory(muster, hook):
    count, workers = 1_000, 20
    client = connect(muster, "dev-1", create(muster, "dev-1"))

    def send_all(first: int) -> float:
        begun = time.monotonic()
        with ThreadPoolExecutor(workers) as sending:
            list(sending.map(lambda number: send(client, {"number": number, "fill": "x" * 4_000}), range(first, first + count)))
        return time.monotonic() - begun

    alone = send_all(0)
    lead_to(muster, hook)
    route(muster, "all", "hook")
    hook.close()
    before = resident_kib(muster)
    beside = send_all(count)
    grown = resident_kib(muster) - before
    assert beside < 3 * alone + 2, f"{alone} s without an endpoint, {beside} s with a dead one"
    assert grown < 32 * 1_024, f"{grown} KiB"
    assert health(muster)["healthStatus"] == "unhealthy"
    assert "refused" in health(muster)["lastKnownError"]
    hook.open()
    assert hook.wait_for(lambda events: len(events) >= count), muster.log
    # Those that were sent before the route was made are not its business.
    numbers = {body["number"] for body in hook.bodies("dev-1")}
    assert numbers == set(range(count, 2 * count))
    sequences = [int(event["sequence"]) for event in hook.events]
    assert sequences == sorted(sequences)
    client.shutdown()


@pytest.mark.shows(**SHOWS, feature="what a webhook will not take is kept apart, listed, sent again")
def test_messages_that_are_refused_are_kept_apart_and_hold_nothing_up(muster, hook):
    refusing = threading.Event()
    refusing.set()
    hook.answer = lambda event: 422 if refusing.is_set() and event["data"]["body"] == {"bad": True} else 200
    lead_to(muster, hook, "--batch")
    route(muster, "all", "hook")
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    for body in [{"number": 1}, {"bad": True}, {"number": 2}, {"number": 3}]:
        send(client, body)
    assert hook.wait_for(lambda events: len(events) == 3), muster.log
    assert hook.bodies("dev-1") == [{"number": 1}, {"number": 2}, {"number": 3}]
    [letter] = muster.command("endpoint", "dead-letters", "hook", "--hub", "hub")
    assert (letter["message"]["body"], letter["attempts"]) == ({"bad": True}, 2)
    assert "422" in letter["reason"] and health(muster)["deadLetterCount"] == 1
    muster.restart()
    assert len(muster.command("endpoint", "dead-letters", "hook", "--hub", "hub")) == 1
    refusing.clear()
    assert muster.command("endpoint", "replay", "hook", "--hub", "hub") == {"replayed": 1}
    assert hook.wait_for(lambda events: len(events) == 4), muster.log
    assert hook.bodies("dev-1")[-1] == {"bad": True}
    client.shutdown()


def test_an_endpoint_that_lies_inside_is_not_dialled_unasked(muster_with, monkeypatch, tmp_path):
    monkeypatch.setenv("MUSTER_OUTBOUND_PRIVATE", "false")
    muster = muster_with()
    hook = WebHook(tmp_path, tls=False)
    lead_to(muster, hook)
    own = muster.endpoints["ports"]["admin"]
    muster.command("endpoint", "create", "webhook", "own", "--hub", "hub", "--url", f"https://127.0.0.1:{own}/")
    route(muster, "all", "hook")
    route(muster, "own", "own")
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    client.send_message("x")
    wait_for_error(muster, "hook", "outbound.private = true")
    wait_for_error(muster, "own", "this server itself")
    assert not hook.events
    client.shutdown()
    hook.close()


def wait_for_error(muster, name: str, words: str):
    """Health is asked for, since it tells nobody by itself."""
    until = time.monotonic() + 20
    while words not in health(muster, name).get("lastKnownError", ""):
        assert time.monotonic() < until, health(muster, name)


def test_a_server_that_nobody_vouches_for_gets_nothing(muster, hook):
    muster.command("endpoint", "create", "webhook", "hook", "--hub", "hub", "--url", hook.url)
    route(muster, "all", "hook")
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    client.send_message("x")
    wait_for_error(muster, "hook", "TLS with 127.0.0.1 fails")
    assert not hook.events
    client.shutdown()


@pytest.fixture
def nats(tmp_path):
    server = NatsServer(tmp_path, "-js", "--user", "u", "--pass", "p")
    yield server
    if server.process.poll() is None:
        server.stop()


LOGIN = {"user": "u", "pass": "p"}


@pytest.mark.shows(**SHOWS, feature="routes to a NATS subject, with and without a stream, over a restart of the NATS server")
def test_a_subject_of_a_nats_server_is_told(muster, nats, tmp_path):
    login = ["--user", "u", "--password", "p"]
    command = ["endpoint", "create", "nats"]
    muster.command(*command, "plain", "--hub", "hub", "--url", nats.url, "--subject", "hub.plain", *login)
    made = muster.command(
        *[*command, "kept", "--hub", "hub", "--url", nats.url, "--subject", "hub.kept", "--jet-stream", *login]
    )
    assert (made["password"], made["jetStream"]) == ("****", True)
    plain = Reader(nats, "hub.plain", LOGIN)
    route(muster, "plain", "plain")
    route(muster, "kept", "kept")
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    send(client, {"number": 1})
    assert plain.wait_for(lambda events: len(events) == 1), muster.log
    # No stream keeps the subject yet, so that nobody has taken the message.
    wait_for_error(muster, "kept", "no stream keeps its subject")
    kept = Reader(nats, "hub.kept", LOGIN)
    plain.request("$JS.API.STREAM.CREATE.HUB", {"name": "HUB", "subjects": ["hub.kept"], "max_msg_size": 4_000})
    for number in [2, 3]:
        send(client, {"number": number})
    assert plain.wait_for(lambda events: len(events) == 3), muster.log
    expected = [{"number": number} for number in [1, 2, 3]]
    assert kept.wait_for(lambda _: [*map_unique(kept.bodies("dev-1"))] == expected), muster.log
    assert plain.bodies("dev-1") == expected
    assert "Nats-Msg-Id: hub-" in plain.headers[0]
    # What is too long for the stream is kept apart, and holds nothing up.
    send(client, {"fill": "x" * 4_000})
    assert plain.wait_for(lambda events: len(events) == 4), muster.log

    nats.stop()
    send(client, {"number": 4})
    for name in ["plain", "kept"]:
        wait_for_error(muster, name, "cannot connect")
    nats.start()
    wait_for_health(muster, "plain")
    wait_for_health(muster, "kept")
    # The stream holds each message once, those included that were published again.
    assert [body["number"] for body in held(nats, "HUB", 4)] == [1, 2, 3, 4]
    [letter] = muster.command("endpoint", "dead-letters", "kept", "--hub", "hub")
    assert "exceeds maximum allowed" in letter["reason"]
    client.shutdown()
    plain.close()
    kept.close()


def wait_for_health(muster, name: str):
    """Health is asked for, since it tells nobody by itself."""
    until = time.monotonic() + 20
    while health(muster, name)["healthStatus"] != "healthy":
        assert time.monotonic() < until, health(muster, name)


def held(nats, stream: str, count: int) -> list:
    """The bodies that a stream holds, which has `count` messages."""
    asking = Reader(nats, "answers", LOGIN)
    asking.request(f"$JS.API.STREAM.INFO.{stream}", {}, "answers")
    for sequence in range(1, count + 1):
        asking.request(f"$JS.API.STREAM.MSG.GET.{stream}", {"seq": sequence}, "answers")
    assert asking.wait_for(lambda answers: len(answers) == 1 + count), asking.events
    info, *answers = asking.events
    asking.close()
    assert info["state"]["messages"] == count, info
    return [json.loads(base64.b64decode(answer["message"]["data"]))["data"]["body"] for answer in answers]


def map_unique(bodies: list) -> list:
    """Bodies without repeats: a message that no stream keeps is heard all the same, and published again."""
    seen = []
    for body in bodies:
        if body not in seen:
            seen.append(body)
    return seen


@pytest.mark.shows(**SHOWS, feature="routes to a NATS subject over TLS, asked for by either side")
def test_a_nats_server_that_speaks_tls_is_told_and_one_that_nobody_vouches_for_is_not(muster, tmp_path):
    hook = WebHook(tmp_path)
    key = str(tmp_path / "hook.key")
    server = NatsServer(tmp_path, "--tls", "--tlscert", hook.authority, "--tlskey", key)
    secure = server.url.replace("nats://", "tls://")
    reader = Reader(server, "hub.>", authority=hook.authority)
    for name, url, trust in [
        ("asked", secure, ["--ca", hook.authority]),
        ("demanded", server.url, ["--ca", hook.authority]),
        ("unknown", secure, []),
    ]:
        create_nats = ["endpoint", "create", "nats", name, "--hub", "hub", "--url", url, "--subject", f"hub.{name}"]
        muster.command(*create_nats, *trust)
        route(muster, name, name)
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    send(client, {"number": 1})
    assert reader.wait_for(lambda events: len(events) == 2), (muster.log, reader.events)
    wait_for_error(muster, "unknown", "TLS with 127.0.0.1 fails")
    assert len(reader.events) == 2
    for name in ["asked", "demanded"]:
        wait_for_health(muster, name)
    client.shutdown()
    reader.close()
    server.stop()
    hook.close()


def test_a_nats_server_that_refuses_the_login_is_told_of(muster, nats):
    command = ["endpoint", "create", "nats", "wrong", "--hub", "hub", "--url", nats.url, "--subject", "a"]
    muster.command(*command, "--user", "u", "--password", "no")
    route(muster, "wrong", "wrong")
    client = connect(muster, "dev-1", create(muster, "dev-1"))
    client.send_message("x")
    wait_for_error(muster, "wrong", "Authorization Violation")
    client.shutdown()
