"""python-qpid-proton, an AMQP client that nobody made for Azure, at the links of provisioning and of a hub."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import pytest
from certificates import make
from peer import Epoch, Peer, annotated, binary, signature, take, text
from proton import ConnectionException, Delivery, Message
from proton.reactor import Selector
from proton.utils import LinkDetached, SendException
from provisioningserviceclient.models import IndividualEnrollment
from test_events import events
from test_hub import create
from test_provisioning import by_client_certificate, service_of

PROTON = {"client": "python-qpid-proton", "version": version("python-qpid-proton"), "transport": "amqp"}
DEVICE = {**PROTON, "credential": "symmetric key"}
BY_CERTIFICATE = {**PROTON, "credential": "X.509"}
SERVICE = {**PROTON, "credential": "hub policy"}
WAYS = ["CBS", "PLAIN"]


def as_device(muster, way: str, key: str, name: str = "dev-1") -> Peer:
    """A device's connection, proven."""
    host = muster.hub["hostName"]
    resource = f"{host}/devices/{name}"
    token = signature(resource, base64.b64decode(key))
    if way == "PLAIN":
        return Peer(muster, host, f"{name}@sas.{host}", token)
    peer = Peer(muster, host)
    assert peer.put_token(resource, token) == 200
    return peer


def key_of(muster, policy: str) -> str:
    return muster.command("policy", "show", policy, "--hub", muster.hub["name"], "--show-keys")["primaryKey"]


def as_service(muster, way: str, policy: str = "service") -> Peer:
    """A back-end program's connection, proven."""
    host = muster.hub["hostName"]
    token = signature(host, base64.b64decode(key_of(muster, policy)), policy)
    if way == "PLAIN":
        return Peer(muster, host, f"{policy}@sas.root.{host.split('.')[0]}", token)
    peer = Peer(muster, host)
    assert peer.put_token(host, token) == 200
    return peer


def as_reader(muster, way: str) -> Peer:
    """The connection of a reader of telemetry, proven by the text of the key, or as any back-end program is."""
    if way == "PLAIN":
        return as_service(muster, way)
    audience = f"sb://{muster.hub['hostName']}/{muster.hub['name']}"
    peer = Peer(muster, muster.hub["hostName"])
    assert peer.put_token(audience, signature(audience, key_of(muster, "service").encode(), "service")) == 200
    return peer


@pytest.mark.shows(**DEVICE, feature="provisioning: register and poll")
def test_a_device_registers(muster):
    entry = muster.command("enrollment", "create", "dev-1", "--show-keys")
    key = base64.b64decode(entry["attestation"]["symmetricKey"]["primaryKey"])
    service = muster.provisioning
    address = f"{service['idScope']}/registrations/dev-1"
    with Peer(muster, service["deviceEndpoint"], address, signature(address, key, "registration")) as peer:
        state = register(peer, address)
    assert state["status"] == "assigned"
    assert state["registrationState"]["assignedHub"] == muster.hub["hostName"]


def register(peer: Peer, address: str) -> dict:
    """Registers and polls until it is told what came of it."""
    answers, requests = peer.receiver(address), peer.sender(address)

    def ask(**said) -> dict:
        properties = {f"iotdps-{name.replace('_', '-')}": value for name, value in said.items()}
        requests.send(binary("{}", properties=properties, correlation_id="c-1"))
        answer = take(answers)
        assert answer.correlation_id == "c-1"
        return json.loads(text(answer))

    state = ask(operation_type="iotdps-register")
    while state["status"] == "assigning":
        state = ask(operation_type="iotdps-get-operationstatus", operation_id=state["operationId"])
    return state


@pytest.mark.shows(**BY_CERTIFICATE, feature="SASL EXTERNAL: provisioning, telemetry, refused")
def test_a_device_registers_and_sends_by_its_certificate(muster, tmp_path):
    make(muster, tmp_path, "device", "dev-x")
    make(muster, tmp_path, "device", "other")
    entry = by_client_certificate((tmp_path / "dev-x.pem").read_text())
    service_of(muster).create_or_update(IndividualEnrollment.create("dev-x", entry))
    service, host = muster.provisioning, muster.hub["hostName"]
    address = f"{service['idScope']}/registrations/dev-x"
    with Peer(muster, service["deviceEndpoint"], certificate=tmp_path / "dev-x") as peer:
        state = register(peer, address)
    assert (state["status"], state["registrationState"]["assignedHub"]) == ("assigned", host)
    with Peer(muster, host, certificate=tmp_path / "dev-x") as peer:
        peer.sender("/devices/dev-x/messages/events").send(binary("by certificate"))
        with pytest.raises(LinkDetached, match="amqp:unauthorized-access"):
            peer.sender("/devices/dev-1/messages/events").send(binary("not mine"))
    (event,) = events(muster, "--from", "start", "--count", "1")
    assert (event["deviceId"], event["body"]) == ("dev-x", "by certificate")
    assert json.loads(event["annotations"]["iothub-connection-auth-method"])["type"] == "x509"
    with Peer(muster, service["deviceEndpoint"], certificate=tmp_path / "other") as impostor:
        with pytest.raises(SendException) as refused:
            register(impostor, address)
        assert refused.value.state == Delivery.REJECTED
    assert muster.command("why", "dev-x")["cause"] == "common-name-differs"
    with Peer(muster, host, certificate=tmp_path / "other") as impostor:
        with pytest.raises(LinkDetached, match="amqp:unauthorized-access"):
            impostor.sender("/devices/dev-x/messages/events").send(binary("not mine"))


@pytest.mark.shows(**DEVICE, feature="provisioning: refused (wrong key)")
def test_a_device_with_another_key_is_refused(muster):
    muster.command("enrollment", "create", "dev-1")
    address = f"{muster.provisioning['idScope']}/registrations/dev-1"
    token = signature(address, bytes(32), "registration")
    with pytest.raises(ConnectionException, match="unauthorized-access"):
        Peer(muster, muster.provisioning["deviceEndpoint"], address, token)


@pytest.mark.shows(**DEVICE, feature="telemetry, twin and desired properties; links of others refused")
@pytest.mark.parametrize("way", WAYS)
def test_a_device_sends_and_has_its_twin(muster, way):
    key = create(muster, "dev-1")
    with as_device(muster, way, key) as peer:
        telemetry = peer.sender("/devices/dev-1/messages/events")
        telemetry.send(binary("first", id="m-1", properties={"alert": "yes"}, content_type="text/plain"))
        telemetry.send(Message(body="a text", properties={"level": 7}))

        answers, questions = peer.receiver("/devices/dev-1/twin", credit=10), peer.sender("/devices/dev-1/twin")

        def ask(operation: str, resource: str | None = None, body: str = " ") -> Message:
            said = annotated(operation=operation, **({"resource": resource} if resource else {}))
            questions.send(binary(body, annotations=said, correlation_id=f"c {operation}"))
            answer = take(answers)
            assert answer.correlation_id == f"c {operation}"
            return answer

        twin = ask("GET")
        assert twin.annotations["status"] == 200 and set(json.loads(text(twin))) == {"desired", "reported"}
        assert ask("PUT", "/notifications/twin/properties/desired").annotations["status"] == 200
        reported = ask("PATCH", "/properties/reported", '{"temperature": 21}')
        assert reported.annotations["status"] in (200, 204) and reported.annotations["version"] == 2
        assert ask("PATCH", "/properties/reported", "no JSON").annotations["status"] == 400
        muster.command("twin", "update", "dev-1", "--desired", '{"delay": 5}')
        changed = take(answers)
        assert changed.correlation_id is None and json.loads(text(changed))["delay"] == 5
        with pytest.raises(LinkDetached, match="amqp:unauthorized-access"):
            peer.sender("/devices/dev-2/messages/events").send(binary("not mine"))
    first, second = muster.run("events", "monitor", "--from", "start", "--count", "2").stdout.splitlines()
    first, second = json.loads(first), json.loads(second)
    assert (first["body"], first["properties"]) == ("first", {"alert": "yes"})
    assert first["systemProperties"]["messageId"] == "m-1"
    assert (second["body"], second["properties"]) == ("a text", {"level": "7"})
    assert muster.command("twin", "show", "dev-1")["properties"]["reported"]["temperature"] == 21


@pytest.mark.shows(**DEVICE, feature="direct methods: called, answers with status and payload")
@pytest.mark.parametrize("way", WAYS)
def test_a_device_is_called(muster, way):
    key = create(muster, "dev-1")
    with as_device(muster, way, key) as peer, ThreadPoolExecutor(1) as calling:
        calls = peer.receiver("/devices/dev-1/methods/devicebound", credit=10)
        answers = peer.sender("/devices/dev-1/methods/devicebound")
        invoked = calling.submit(muster.command, "method", "invoke", "dev-1", "reboot", "--payload", '{"after": 5}')
        call = take(calls)
        assert (call.properties["IoThub-methodname"], json.loads(text(call))) == ("reboot", {"after": 5})
        answers.send(binary('{"done": true}', correlation_id=call.correlation_id, properties={"IoThub-status": 207}))
        assert invoked.result() == {"status": 207, "payload": {"done": True}}


@pytest.mark.shows(**DEVICE, feature="cloud-to-device: completed, abandoned, rejected, with feedback on each")
@pytest.mark.parametrize("way", WAYS)
def test_a_device_settles_what_it_is_sent(muster, way):
    key = create(muster, "dev-1")
    with as_service(muster, way) as service:
        sender = service.sender("/messages/devicebound")
        for name in ["done", "refused"]:
            to = "/devices/dev-1/messages/devicebound"
            said = {"iothub-ack": "full", "kind": name}
            sender.send(binary(f"body {name}", id=name, address=to, properties=said))
        with as_device(muster, way, key) as peer:
            messages = peer.receiver("/devices/dev-1/messages/devicebound")

            def receive() -> str:
                message = messages.receive()
                assert (text(message), message.properties["kind"]) == (f"body {message.id}", message.id)
                return message.id

            assert receive() == "done"
            messages.release(delivered=False)
            first = receive()
            messages.accept()
            second = receive()
            messages.reject()
            # This client writes only while it waits.
            messages.close()
        assert {first, second} == {"done", "refused"}
        statuses = {}
        feedback = service.receiver("/messages/servicebound/feedback")
        while len(statuses) < 2:
            batch = feedback.receive()
            assert batch.content_type == "application/vnd.microsoft.iothub.feedback.json"
            statuses.update({one["originalMessageId"]: one["statusCode"] for one in json.loads(text(batch))})
            feedback.accept()
        assert statuses == {first: "Success", second: "Rejected"}


@pytest.mark.shows(**SERVICE, feature="cloud-to-device: refused (unknown device, no right), feedback released")
@pytest.mark.parametrize("way", WAYS)
def test_a_back_end_program_is_refused_and_gets_feedback_again(muster, way):
    create(muster, "dev-1")
    with as_service(muster, way) as service:
        sender = service.sender("/messages/devicebound")
        with pytest.raises(SendException) as refused:
            sender.send(binary("hello", address="/devices/nobody/messages/devicebound"))
        assert refused.value.state == Delivery.REJECTED
        said = {"iothub-ack": "full"}
        sender.send(binary("purged", id="m1", address="/devices/dev-1/messages/devicebound", properties=said))
        muster.command("message", "purge", "dev-1")
        feedback = service.receiver("/messages/servicebound/feedback")
        for settle in [lambda: feedback.release(delivered=False), feedback.accept]:
            batch = json.loads(text(feedback.receive()))
            assert [(one["originalMessageId"], one["statusCode"]) for one in batch] == [("m1", "Purged")]
            settle()
    with as_service(muster, way, "registryRead") as reader, pytest.raises(LinkDetached, match="unauthorized-access"):
        reader.sender("/messages/devicebound").send(binary("hello"))


@pytest.mark.shows(**SERVICE, feature="Event Hubs endpoint: management, selectors, epochs")
@pytest.mark.parametrize("way", WAYS)
def test_telemetry_is_read_at_the_endpoint_for_event_hubs(muster, way):
    key, hub = create(muster, "dev-1"), muster.hub["name"]
    with as_device(muster, way, key) as peer:
        telemetry = peer.sender("/devices/dev-1/messages/events")
        for number in range(5):
            telemetry.send(binary(str(number)))
    with as_reader(muster, way) as reader:

        def describe(**said) -> dict:
            answer = reader.call("$management", Message(properties={"operation": "READ", "name": hub, **said}))
            assert answer.properties["status-code"] == 200
            return answer.body

        partitions = describe(type="com.microsoft:eventhub")["partition_ids"]
        held = [describe(type="com.microsoft:partition", partition=number) for number in partitions]
        (filled,) = [one["partition"] for one in held if not one["is_partition_empty"]]
        address = f"{hub}/ConsumerGroups/$Default/Partitions/{filled}"

        def read(count: int, expression: str) -> list:
            receiver = reader.receiver(address, Selector(expression))
            messages = [receiver.receive() for _ in range(count)]
            receiver.close()
            return messages

        everything = read(5, "amqp.annotation.x-opt-offset > '-1'")
        assert [text(message) for message in everything] == ["0", "1", "2", "3", "4"]
        assert everything[0].annotations["iothub-connection-device-id"] == "dev-1"
        offset = everything[2].annotations["x-opt-offset"]
        assert [text(message) for message in read(2, f"amqp.annotation.x-opt-offset > '{offset}'")] == ["3", "4"]
        number = everything[3].annotations["x-opt-sequence-number"]
        (last,) = read(1, f"amqp.annotation.x-opt-sequence-number > '{number}'")
        assert text(last) == "4"

        weak = reader.receiver(address, Epoch(1))
        with as_reader(muster, way) as other:
            assert text(other.receiver(address, Epoch(2)).receive()) == "0"
            with pytest.raises(LinkDetached, match="amqp:link:stolen"):
                weak.receive()
            with pytest.raises(LinkDetached, match="amqp:link:stolen"):
                reader.receiver(address, Epoch(1)).receive()
