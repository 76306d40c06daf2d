"""Every refusal of azure-iot-device and of curl says nothing on the wire, and everything to the operator's `muster why`."""

import json
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from azure.iot.device.exceptions import ClientError
from certificates import group_by_intermediate, make, make_chain, prove
from provisioningserviceclient.models import AttestationMechanism, IndividualEnrollment
from test_curl import API_VERSION, CURL, JSON, curl, signed
from test_provisioning import OTHER_KEY, TRANSPORTS, by_certificate, by_key, service_of

NO_SCOPE = "0ne00000000"
TWO_DAYS_S = 2 * 24 * 60 * 60


@dataclass
class Shown:
    """What dev-1 shows: a key or a certificate's file, and where it believes to be."""

    key: str | None = None
    file: str | None = None
    id_scope: str | None = None

    def client(self, muster, folder: Path, transport: str):
        """A device of the Python SDK."""
        if self.key is not None:
            return by_key(muster, "dev-1", self.key, transport, self.id_scope)
        return by_certificate(muster, "dev-1", folder, transport, self.file)

    def curl(self, muster, folder: Path) -> tuple[int, dict, dict]:
        """The manual's call for registering."""
        if self.key is not None:
            credential = ["-H", f"Authorization: {signed(muster, 'dev-1', self.key, self.id_scope)}"]
        else:
            chain, key = (str(folder / f"{self.file}{ending}") for ending in (".chain.pem", ".key.pem"))
            credential = ["--cert", chain, "--key", key]
        scope = self.id_scope or muster.provisioning["idScope"]
        host = muster.provisioning["deviceEndpoint"]
        url = f"https://{host}/{scope}/registrations/dev-1/register?api-version={API_VERSION}"
        body = json.dumps({"registrationId": "dev-1"})
        return curl(muster, "-X", "PUT", *JSON, *credential, "-d", body, url)


def enroll(muster, **changes) -> str:
    """An individual enrollment by key; returns the key."""
    entry = IndividualEnrollment.create("dev-1", AttestationMechanism(type="symmetricKey"))
    for name, value in changes.items():
        setattr(entry, name, value)
    return service_of(muster).create_or_update(entry).attestation.symmetric_key.primary_key


def enroll_group(muster, folder):
    """An enrollment group of what an intermediate signs."""
    make_chain(muster, folder)
    prove(muster, folder)
    service_of(muster).create_or_update(group_by_intermediate(folder))


def wrong_key(muster, folder, monkeypatch):
    enroll(muster)
    return Shown(key=OTHER_KEY)


def disabled_entry(muster, folder, monkeypatch):
    return Shown(key=enroll(muster, provisioning_status="disabled"))


def wrong_id_scope(muster, folder, monkeypatch):
    return Shown(key=enroll(muster), id_scope=NO_SCOPE)


def clock_skew(muster, folder, monkeypatch):
    key = enroll(muster)
    real = time.time
    # The clock of a device that was switched on without the network's time.
    monkeypatch.setattr(time, "time", lambda: real() - TWO_DAYS_S)
    return Shown(key=key)


def expired_certificate(muster, folder, monkeypatch):
    enroll_group(muster, folder)
    make(muster, folder, "device", "dev-1", "--issuer", "intermediate", "--days", "-1")
    return Shown(file="dev-1")


def common_name_differs(muster, folder, monkeypatch):
    enroll_group(muster, folder)
    make(muster, folder, "device", "dev-2", "--issuer", "intermediate")
    return Shown(file="dev-2")


def unknown_ca(muster, folder, monkeypatch):
    enroll_group(muster, folder)
    make(muster, folder, "root", "stranger")
    make(muster, folder, "device", "dev-1", "--issuer", "stranger")
    return Shown(file="dev-1")


CASES = [
    (wrong_key, "wrong-key", 401),
    (disabled_entry, "disabled-entry", 401),
    (clock_skew, "clock-skew", 401),
    (expired_certificate, "expired-certificate", 401),
    (common_name_differs, "common-name-differs", 401),
    (unknown_ca, "unknown-ca", 401),
    (wrong_id_scope, "wrong-id-scope", 404),
]
EACH_CAUSE = pytest.mark.parametrize(("provoke", "cause", "status"), CASES, ids=[case[1] for case in CASES])


def is_explained(muster, cause: str, asked: str):
    """The operator is told the cause, what was considered, and what would help."""
    decision = muster.command("why", asked)
    assert (decision["outcome"], decision["cause"]) == ("refused", cause), decision
    assert decision["what"] and decision["fix"]
    told = muster.run("why", asked, "--output", "table").stdout
    assert cause in told and "to fix it" in told, told
    if cause in ("expired-certificate", "common-name-differs", "unknown-ca"):
        assert decision["chain"], decision
    if cause in ("wrong-key", "disabled-entry", "clock-skew"):
        assert [entry["entry"] for entry in decision["considered"]] == ["enrollment dev-1"]


@pytest.mark.shows(
    client="azure-iot-device",
    version=version("azure-iot-device"),
    credential="any",
    feature="each of seven refusals is explained by `muster why`",
)
@pytest.mark.parametrize("transport", TRANSPORTS)
@EACH_CAUSE
def test_a_refusal_is_explained_to_the_operator_alone(
    muster, tmp_path, monkeypatch, provoke, cause, status, transport
):
    shown = provoke(muster, tmp_path, monkeypatch)
    with pytest.raises(ClientError) as refused:
        shown.client(muster, tmp_path, transport).register()
    assert str(status) in str(refused.value.__cause__), refused.value.__cause__
    assert cause not in str(refused.value.__cause__)
    is_explained(muster, cause, "dev-1")


@pytest.mark.shows(
    **CURL, transport="https", credential="any", feature="each of seven refusals is explained by `muster why`"
)
@EACH_CAUSE
def test_a_refused_call_is_explained_to_the_operator_alone(muster, tmp_path, monkeypatch, provoke, cause, status):
    shown = provoke(muster, tmp_path, monkeypatch)
    found, _, told = shown.curl(muster, tmp_path)
    assert found == status, told
    assert set(told) == {"errorCode", "trackingId", "message", "timestampUtc"}
    if status == 401:
        assert (told["errorCode"], told["message"]) == (401002, "Unauthorized")
    assert cause not in json.dumps(told)
    is_explained(muster, cause, told["trackingId"])
    is_explained(muster, cause, "dev-1")
