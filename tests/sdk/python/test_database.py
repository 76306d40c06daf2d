"""A Muster that keeps what is durable in PostgreSQL: the story of a device, kill -9, and a database that goes away."""

import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import Twin, TwinProperties
from database import Database
from test_cloud_to_device import listen, send, texts
from test_hub import DEVICE, connect, provision

WAIT_S = 60
STORED = {**DEVICE, "transport": "mqtt", "credential": "symmetric key"}


@pytest.fixture
def database():
    """A database server; its sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="muster-") as folder:
        server = Database(Path(folder) / "sql")
        server.start()
        yield server
        server.stop()


def registry_of(muster) -> IoTHubRegistryManager:
    return IoTHubRegistryManager.from_connection_string(muster.hub["connectionString"])


@pytest.mark.shows(**STORED, feature="store in PostgreSQL: provision, telemetry, twin, cloud-to-device, kill -9")
def test_a_device_finds_everything_again_after_the_server_was_killed(muster_with, database):
    muster = muster_with("--database", database.address)
    key = provision(muster, "dev-1", {"temperature": 50.5})
    client = connect(muster, "dev-1", key)
    client.send_message("before")
    client.patch_twin_reported_properties({"before": True})
    arrived = listen(client)
    send(muster, "dev-1", "while it was there")
    assert texts(arrived, 1) == ["while it was there"]
    back = threading.Event()
    client.on_connection_state_change = lambda: back.set() if client.connected else None
    muster.kill()
    muster.start()
    send(muster, "dev-1", "while it was away")
    assert back.wait(WAIT_S), muster.log
    # What was not acknowledged before the end comes again.
    while texts(arrived, 1) != ["while it was away"]:
        pass
    twin = client.get_twin()
    assert twin["desired"] == {"temperature": 50.5, "$version": 1}
    assert twin["reported"] == {"before": True, "$version": 2}
    registry_of(muster).update_twin("dev-1", Twin(properties=TwinProperties(desired={"temperature": 40})))
    assert client.get_twin()["desired"] == {"temperature": 40, "$version": 2}
    found = muster.command("query", "SELECT deviceId FROM devices WHERE tags.place = 'cave'")
    assert found == [{"deviceId": "dev-1"}]
    assert muster.command("events", "monitor", "--from", "start", "--count", "1")
    client.shutdown()


def test_a_second_server_on_the_same_database_is_refused_in_words(muster_with, database, tmp_path):
    muster = muster_with("--database", database.address)
    other = [muster.binary, "serve", "--data", str(tmp_path / "other"), "--database", database.address]
    refused = subprocess.run(other, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert refused.returncode != 0
    assert "is in use by another process" in refused.stderr, refused.stderr


def test_a_server_outlives_a_restart_of_its_database(muster_with, database):
    muster = muster_with("--database", database.address)
    muster.command("device", "create", "dev-1")
    database.stop()
    away = muster.run("device", "create", "dev-2")
    assert away.returncode != 0
    assert "unavailable" in away.stderr.lower(), away.stderr
    database.start()
    muster.command("device", "create", "dev-2")
    assert [device["deviceId"] for device in muster.command("device", "list")] == ["dev-1", "dev-2"]


def test_a_database_that_is_away_is_told_of_with_what_to_do(muster_with, database, tmp_path):
    muster = muster_with()
    command = [muster.binary, "serve", "--data", str(tmp_path / "other"), "--database", "postgres://muster:s3cret@127.0.0.1:1/x"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert refused.returncode != 0
    assert "127.0.0.1/x cannot be opened; see that its server runs" in refused.stderr, refused.stderr
    assert "s3cret" not in refused.stderr
