"""The manual's `curl` calls against a running server, as printed but for host, names and certificates."""

import json
import subprocess
from importlib.metadata import version

import pytest
from certificates import make
from provisioningserviceclient.models import AttestationMechanism, IndividualEnrollment
from test_provisioning import OTHER_KEY, by_client_certificate, derived, service_of

CURL = {"client": "curl", "version": subprocess.run(["curl", "-V"], capture_output=True, text=True).stdout.split()[1]}
API_VERSION = "2021-06-01"
JSON = ["-H", "Content-Type: application/json", "-H", "Content-Encoding: utf-8"]


def curl(muster, *arguments: str) -> tuple[int, dict, dict]:
    """Status, headers and body of a call."""
    command = ["curl", "-sS", "-i", "--http1.1", "--cacert", muster.endpoints["caFile"], "-L", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    head, body = done.stdout.split("\n\n", 1)
    status, *lines = head.split("\n")
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    return int(status.split()[1]), headers, json.loads(body)


def base(muster) -> str:
    return f"https://{muster.provisioning['deviceEndpoint']}/{muster.provisioning['idScope']}/registrations"


def signed(muster, registration_id: str, key: str, id_scope: str | None = None) -> str:
    """The signature that the manual computes with a short script."""
    from azure.iot.device.common.auth import sastoken, signing_mechanism

    resource = f"{id_scope or muster.provisioning['idScope']}/registrations/{registration_id}"
    mechanism = signing_mechanism.SymmetricKeySigningMechanism(key)
    return f"{sastoken.RenewableSasToken(resource, mechanism)}&skn=registration"


def poll(muster, registration_id: str, operation: str, *credential: str) -> dict:
    """Asks once the server has told its operator that the device is assigned."""
    assert muster.log.wait_for("device assigned"), muster.log
    url = f"{base(muster)}/{registration_id}/operations/{operation}?api-version={API_VERSION}"
    status, _, body = curl(muster, "-X", "GET", *JSON, *credential, url)
    assert status == 200, body
    return body


@pytest.mark.shows(**CURL, transport="https", credential="symmetric key", feature="the manual's calls: register, poll, look up")
def test_the_manuals_calls_with_a_signature(muster):
    entry = IndividualEnrollment.create("sym-key-device-007", AttestationMechanism(type="symmetricKey"))
    key = service_of(muster).create_or_update(entry).attestation.symmetric_key.primary_key
    authorization = ["-H", f"Authorization: {signed(muster, 'sym-key-device-007', key)}"]
    body = json.dumps({"registrationId": "sym-key-device-007"})
    url = f"{base(muster)}/sym-key-device-007/register?api-version={API_VERSION}"
    status, headers, told = curl(muster, "-X", "PUT", *JSON, *authorization, "-d", body, url)
    assert (status, told["status"]) == (202, "assigning")
    assert int(headers["retry-after"]) > 0
    done = poll(muster, "sym-key-device-007", told["operationId"], *authorization)
    assert (done["status"], done["registrationState"]["assignedHub"]) == ("assigned", muster.hub["hostName"])
    url = f"{base(muster)}/sym-key-device-007?api-version={API_VERSION}"
    status, _, told = curl(muster, "-X", "POST", *JSON, *authorization, "-d", body, url)
    assert (status, told["deviceId"]) == (200, "sym-key-device-007")


@pytest.mark.shows(**CURL, transport="https", credential="X.509", feature="the manual's calls: register, poll")
def test_the_manuals_calls_with_a_certificate(muster, tmp_path):
    make(muster, tmp_path, "device", "my-x509-device")
    pem = (tmp_path / "my-x509-device.pem").read_text()
    service_of(muster).create_or_update(IndividualEnrollment.create("my-x509-device", by_client_certificate(pem)))
    certificate = str(tmp_path / "my-x509-device.pem")
    credential = ["--cert", certificate, "--key", str(tmp_path / "my-x509-device.key.pem")]
    body = json.dumps({"registrationId": "my-x509-device"})
    url = f"{base(muster)}/my-x509-device/register?api-version={API_VERSION}"
    status, _, told = curl(muster, "-X", "PUT", *JSON, *credential, "-d", body, url)
    assert (status, told["status"]) == (202, "assigning")
    done = poll(muster, "my-x509-device", told["operationId"], *credential)
    assert done["registrationState"]["deviceId"] == "my-x509-device"


@pytest.mark.shows(**CURL, transport="https", credential="symmetric key", feature="a refusal has one form")
def test_a_refused_call_says_what_every_refusal_says(muster):
    url = f"{base(muster)}/dev-1/register?api-version={API_VERSION}"
    token = signed(muster, "dev-1", derived(OTHER_KEY, "dev-1"))
    body = json.dumps({"registrationId": "dev-1"})
    status, _, told = curl(muster, "-X", "PUT", *JSON, "-H", f"Authorization: {token}", "-d", body, url)
    assert (status, told["errorCode"]) == (401, 401002)
    assert set(told) >= {"errorCode", "trackingId", "message", "timestampUtc"}
    assert muster.command("why", told["trackingId"])["cause"] == "not-enrolled"
    cut = token[: token.index("&sig=")]
    status, _, unread = curl(muster, "-X", "PUT", *JSON, "-H", f"Authorization: {cut}", "-d", body, url)
    assert (status, set(unread), unread["message"]) == (401, set(told), told["message"])
    assert muster.command("why", unread["trackingId"])["cause"] == "unreadable-signature"
