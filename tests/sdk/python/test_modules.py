"""A module at a hub over HTTPS, where Azure's clients have devices alone: telemetry, messages to it, files."""

import base64
import json
from importlib.metadata import version

import pytest
import requests
from azure.storage.blob import BlobClient
from certificates import make, thumbprint
from test_cloud_to_device import awaited_feedback
from test_devices import token
from test_events import events
from test_operators import KEY, OTHER_KEY, THIRD_KEY, registry_of
from test_uploads import CONTAINER, address, fetched, names

MODULE = {"client": "requests", "version": version("requests"), "transport": "https"}
CREDENTIALS = ["symmetric key", "X.509"]
BATCH = "application/vnd.microsoft.iothub.json"
ANSWERED_S = 20


class Module:
    """A module of `dev-1`, whose requests prove who sends them."""

    def __init__(self, muster, name: str, signed: str | None = None, certificate: tuple | None = None):
        self.base = f"https://{muster.hub['hostName']}/devices/dev-1/modules/{name}"
        self.session = requests.Session()
        self.session.cert = certificate
        if signed is not None:
            self.session.headers["Authorization"] = signed

    def ask(self, verb: str, path: str, query: str = "", **said) -> requests.Response:
        """What is answered to a request."""
        address = f"{self.base}/{path}?api-version=2021-04-12{query}"
        return self.session.request(verb, address, timeout=ANSWERED_S, **said)

    def receive(self) -> tuple[str, requests.Response]:
        """The next message, and its lock."""
        message = self.ask("GET", "messages/devicebound")
        assert message.status_code == 200, message.text
        return message.headers["ETag"].strip('"'), message

    def complete(self, lock: str) -> int:
        return self.ask("DELETE", f"messages/devicebound/{lock}").status_code

    def abandon(self, lock: str) -> int:
        return self.ask("POST", f"messages/devicebound/{lock}/abandon").status_code

    def reject(self, lock: str) -> int:
        return self.ask("DELETE", f"messages/devicebound/{lock}", "&reject").status_code


def by_key(muster, name: str, key: str) -> Module:
    return Module(muster, name, token(f"{muster.hub['hostName']}/devices/dev-1/modules/{name}", key))


def by_certificate(muster, name: str, folder, file: str) -> Module:
    make(muster, folder, "device", file)
    return Module(muster, name, certificate=(folder / f"{file}.chain.pem", folder / f"{file}.key.pem"))


def create(muster, name: str, credential: str, folder) -> Module:
    """Makes a module in the registry by a credential; its device is there."""
    registry = registry_of(muster)
    if credential == "symmetric key":
        registry.create_module_with_sas("dev-1", name, "", KEY, OTHER_KEY)
        return by_key(muster, name, OTHER_KEY)
    module = by_certificate(muster, name, folder, name)
    own = thumbprint((folder / f"{name}.pem").read_bytes())
    registry.create_module_with_x509("dev-1", name, "", own, own)
    return module


@pytest.fixture
def module_by(muster, tmp_path):
    """Makes a module by a credential, and its device by keys of its own."""

    def made(credential: str) -> Module:
        registry_of(muster).create_device_with_sas("dev-1", THIRD_KEY, THIRD_KEY, "enabled")
        return create(muster, "mod-1", credential, tmp_path)

    return made


@pytest.mark.shows(**MODULE, feature="modules: telemetry, single and in a batch")
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_module_sends_alone_and_in_a_batch(muster, module_by, credential):
    module = module_by(credential)
    said = {"iothub-messageid": "m/1", "iothub-app-alert": "yes"}
    assert module.ask("POST", "messages/events", data=b"alone", headers=said).status_code == 204
    batch = [
        {"body": base64.b64encode(b"first").decode(), "properties": {"iothub-app-Index": "1"}},
        {"body": "second", "base64Encoded": False, "properties": {"iothub-app-Index": "2"}},
    ]
    sent = module.ask("POST", "messages/events", data=json.dumps(batch), headers={"Content-Type": BATCH})
    assert sent.status_code == 204
    shown = events(muster, "--from", "start", "--count", "3")
    assert [event["body"] for event in shown] == ["alone", "first", "second"]
    assert {(event["deviceId"], event["moduleId"]) for event in shown} == {("dev-1", "mod-1")}
    alone, *others = shown
    assert (alone["systemProperties"]["messageId"], alone["properties"]) == ("m/1", {"alert": "yes"})
    assert [event["properties"] for event in others] == [{"Index": "1"}, {"Index": "2"}]
    told = json.loads(alone["annotations"]["iothub-connection-auth-method"])
    assert (told["scope"], told["type"]) == ("module", "sas" if credential == "symmetric key" else "x509")


@pytest.mark.shows(**MODULE, feature="modules: messages received, completed, abandoned, rejected, with feedback")
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_module_settles_what_it_is_sent(muster, module_by, credential):
    module = module_by(credential)
    assert module.ask("GET", "messages/devicebound").status_code == 204
    for name in ["done", "refused"]:
        said = ["--message-id", name, "--ack", "full", "--property", f"kind={name}"]
        muster.command("message", "send", "dev-1", f"body {name}", "--module", "mod-1", *said)
    lock, message = module.receive()
    assert (message.text, message.headers["iothub-app-kind"]) == ("body done", "done")
    assert message.headers["iothub-to"] == "/devices/dev-1/modules/mod-1/messages/deviceBound"
    assert (message.headers["iothub-messageid"], message.headers["iothub-deliverycount"]) == ("done", "0")
    assert module.abandon(lock) == 204
    assert module.complete(lock) == 412
    lock, message = module.receive()
    assert (message.text, message.headers["iothub-deliverycount"]) == ("body done", "1")
    assert module.complete(lock) == 204
    lock, message = module.receive()
    assert message.text == "body refused"
    assert module.reject(lock) == 204
    assert module.ask("GET", "messages/devicebound").status_code == 204
    assert awaited_feedback(muster, 2) == {"done": "Success", "refused": "Rejected"}


@pytest.mark.shows(**MODULE, feature="modules: what is another's is refused")
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_module_has_nothing_of_others(muster, module_by, tmp_path, credential):
    own = module_by(credential)
    other = create(muster, "mod-2", "symmetric key", tmp_path)
    muster.command("message", "send", "dev-1", "not yours", "--module", "mod-1")
    host = muster.hub["hostName"]
    strangers = {
        "the key of another": by_key(muster, "mod-1", THIRD_KEY),
        "another's token": Module(muster, "mod-1", token(f"{host}/devices/dev-1/modules/mod-2", KEY)),
        "the device's token": Module(muster, "mod-1", token(f"{host}/devices/dev-1", THIRD_KEY)),
        "another's certificate": by_certificate(muster, "mod-1", tmp_path, "other"),
        "nothing": Module(muster, "mod-1"),
    }
    lock, _ = own.receive()
    for name, stranger in strangers.items():
        for verb, path in [
            ("POST", "messages/events"),
            ("GET", "messages/devicebound"),
            ("DELETE", f"messages/devicebound/{lock}"),
            ("POST", "files"),
        ]:
            assert stranger.ask(verb, path, data=b'{"blobName": "a"}').status_code == 401, (name, verb, path)
    assert other.ask("GET", "messages/devicebound").status_code == 204
    assert other.complete(lock) == 412
    assert own.complete(lock) == 204


@pytest.mark.shows(**MODULE, feature="modules: file upload with azure-storage-blob, notified")
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_module_uploads_a_file_and_the_back_end_hears_of_it(muster, module_by, tmp_path, credential):
    hub = muster.hub["name"]
    muster.command("hub", "update", hub, "--upload-container", CONTAINER, "--upload-notifications", "true")
    module = module_by(credential)
    begun = module.ask("POST", "files", json={"blobName": "logs/a.txt"})
    assert begun.status_code == 200, begun.text
    place = begun.json()
    assert (place["blobName"], place["containerName"]) == ("dev-1/mod-1/logs/a.txt", CONTAINER)
    BlobClient.from_blob_url(address(place), retry_total=0).upload_blob(b"hello")
    done = {"correlationId": place["correlationId"], "isSuccess": True, "statusCode": 200, "statusDescription": "done"}
    other = create(muster, "mod-2", "symmetric key", tmp_path)
    assert other.ask("POST", "files/notifications", json=done).status_code == 400
    assert module.ask("POST", "files/notifications", json=done).status_code == 204
    (told,) = muster.command("file", "notifications")
    assert (told["deviceId"], told["moduleId"]) == ("dev-1", "mod-1")
    assert (told["blobName"], told["blobSizeInBytes"]) == ("dev-1/mod-1/logs/a.txt", 5)
    assert names(muster) == ["dev-1/mod-1/logs/a.txt"]
    assert fetched(muster, place["blobName"], tmp_path) == b"hello"
