"""azure-iot-hub is told of messages that expired or were given back too often, and gets what it has not completed again."""

import time
from datetime import datetime, timedelta, timezone

import pytest
from azure.iot.hub import IoTHubHttpRuntimeManager
from msrest.exceptions import HttpOperationError
from peer import text
from test_cloud_to_device import SERVICE, WAIT_S, send, waiting
from test_hub import create
from test_hub_resource import GROUP, resource_of
from test_proton import as_device

LOCK = timedelta(seconds=5)
DELIVERIES_MAX = 2


@pytest.fixture(name="impatient")
def server_with_little_patience(muster):
    """A server whose hub holds feedback no longer for whoever took it than it must, and delivers messages twice at most."""
    resource, name = resource_of(muster), muster.hub["name"]
    hub = resource.get(GROUP, name)
    queue = hub.properties.cloud_to_device
    queue.max_delivery_count = DELIVERIES_MAX
    queue.feedback.lock_duration_as_iso8601 = LOCK
    changed = resource.begin_create_or_update(GROUP, name, hub).result().properties.cloud_to_device
    assert (changed.max_delivery_count, changed.feedback.lock_duration_as_iso8601) == (DELIVERIES_MAX, LOCK)
    return muster


def manager_of(muster) -> IoTHubHttpRuntimeManager:
    return IoTHubHttpRuntimeManager.from_connection_string(muster.hub["connectionString"])


def take(manager: IoTHubHttpRuntimeManager) -> tuple[str, dict]:
    """The lock of the next feedback and its records by message, asked for until there is some."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        # The client keeps the answer to itself; its own lower layer shows it.
        raw = manager.protocol.cloud_to_device_messages.receive_feedback_notification(raw=True).response
        if raw.status_code == 200:
            return raw.headers["ETag"].strip('"'), {it["originalMessageId"]: it for it in raw.json()}
    raise AssertionError("feedback")


@pytest.mark.shows(**SERVICE, credential="shared access policy", feature="cloud-to-device: feedback on what has expired")
def test_what_has_expired_is_told_of_and_comes_no_more(impatient):
    key = create(impatient, "dev-1")
    soon = (datetime.now(timezone.utc) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    send(impatient, "dev-1", "quiet", "--ack", "positive", "--message-id", "quiet", "--expires-at", soon)
    send(impatient, "dev-1", "late", "--ack", "negative", "--message-id", "late", "--expires-at", soon)
    manager = manager_of(impatient)
    lock, records = take(manager)
    assert {name: (it["deviceId"], it["statusCode"]) for name, it in records.items()} == {"late": ("dev-1", "Expired")}
    assert records["late"]["enqueuedTimeUtc"] >= soon.removesuffix("Z")
    manager.complete_feedback_notification(lock)
    assert waiting(impatient, "dev-1") == 0
    send(impatient, "dev-1", "in time")
    with as_device(impatient, "CBS", key) as peer:
        assert text(peer.receiver("/devices/dev-1/messages/devicebound").receive()) == "in time"


@pytest.mark.shows(**SERVICE, credential="shared access policy", feature="cloud-to-device: feedback on what was given back too often")
def test_what_is_given_back_too_often_is_told_of_and_comes_no_more(impatient):
    key = create(impatient, "dev-1")
    send(impatient, "dev-1", "again and again", "--ack", "negative", "--message-id", "m-1")
    with as_device(impatient, "CBS", key) as peer:
        messages = peer.receiver("/devices/dev-1/messages/devicebound")
        for _ in range(DELIVERIES_MAX):
            assert text(messages.receive()) == "again and again"
            messages.release(delivered=False)
        # This client writes only while it waits.
        send(impatient, "dev-1", "another")
        assert text(messages.receive()) == "another"
        messages.accept()
        messages.close()
    manager = manager_of(impatient)
    lock, records = take(manager)
    assert {name: it["statusCode"] for name, it in records.items()} == {"m-1": "DeliveryCountExceeded"}
    manager.complete_feedback_notification(lock)
    assert waiting(impatient, "dev-1") == 0


@pytest.mark.shows(**SERVICE, credential="shared access policy", feature="cloud-to-device: feedback comes again when its lock has run out")
def test_feedback_comes_again_when_its_lock_has_run_out(impatient):
    create(impatient, "dev-1")
    send(impatient, "dev-1", "purged", "--ack", "full", "--message-id", "m-1")
    impatient.command("message", "purge", "dev-1")
    manager = manager_of(impatient)
    first, records = take(manager)
    taken = time.monotonic()
    second, again = take(manager)
    # The lock began to run before its holder knew of it.
    assert time.monotonic() - taken >= LOCK.total_seconds() - 1
    assert second != first and again == records and records.keys() == {"m-1"}
    with pytest.raises(HttpOperationError) as lost:
        manager.complete_feedback_notification(first)
    assert lost.value.response.status_code == 412
    manager.complete_feedback_notification(second)
    assert impatient.command("message", "feedback") == []
