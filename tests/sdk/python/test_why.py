"""Every refusal of azure-iot-device says nothing on the wire, and everything to the operator's `muster why`."""

import base64
import time
from importlib.metadata import version

import pytest
from azure.iot.device.exceptions import ClientError
from certificates import group_by_intermediate, make, make_chain, prove
from provisioningserviceclient.models import AttestationMechanism, IndividualEnrollment
from test_provisioning import by_certificate, by_key, service_of

OTHER_KEY = base64.b64encode(b"another key of thirty-two bytes!").decode()
TWO_DAYS_S = 2 * 24 * 60 * 60


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
    return by_key(muster, "dev-1", OTHER_KEY)


def disabled_entry(muster, folder, monkeypatch):
    return by_key(muster, "dev-1", enroll(muster, provisioning_status="disabled"))


def wrong_id_scope(muster, folder, monkeypatch):
    return by_key(muster, "dev-1", enroll(muster), id_scope="0ne00000000")


def clock_skew(muster, folder, monkeypatch):
    key = enroll(muster)
    real = time.time
    # The clock of a device that was switched on without the network's time.
    monkeypatch.setattr(time, "time", lambda: real() - TWO_DAYS_S)
    return by_key(muster, "dev-1", key)


def expired_certificate(muster, folder, monkeypatch):
    enroll_group(muster, folder)
    make(muster, folder, "device", "dev-1", "--issuer", "intermediate", "--days", "-1")
    return by_certificate(muster, "dev-1", folder)


def common_name_differs(muster, folder, monkeypatch):
    enroll_group(muster, folder)
    make(muster, folder, "device", "dev-2", "--issuer", "intermediate")
    return by_certificate(muster, "dev-1", folder, file="dev-2")


def unknown_ca(muster, folder, monkeypatch):
    enroll_group(muster, folder)
    make(muster, folder, "root", "stranger")
    make(muster, folder, "device", "dev-1", "--issuer", "stranger")
    return by_certificate(muster, "dev-1", folder)


CASES = [
    (wrong_key, "wrong-key", "401"),
    (disabled_entry, "disabled-entry", "401"),
    (clock_skew, "clock-skew", "401"),
    (expired_certificate, "expired-certificate", "401"),
    (common_name_differs, "common-name-differs", "401"),
    (unknown_ca, "unknown-ca", "401"),
    (wrong_id_scope, "wrong-id-scope", "404"),
]


@pytest.mark.shows(
    client="azure-iot-device",
    version=version("azure-iot-device"),
    transport="mqtt",
    credential="any",
    feature="each of seven refusals is explained by `muster why`",
)
@pytest.mark.parametrize(("provoke", "cause", "status"), CASES, ids=[case[1] for case in CASES])
def test_a_refusal_is_explained_to_the_operator_alone(muster, tmp_path, monkeypatch, provoke, cause, status):
    with pytest.raises(ClientError) as refused:
        provoke(muster, tmp_path, monkeypatch).register()
    assert status in str(refused.value.__cause__), refused.value.__cause__
    assert cause not in str(refused.value.__cause__)
    decision = muster.command("why", "dev-1")
    assert (decision["outcome"], decision["cause"]) == ("refused", cause), decision
    assert decision["what"] and decision["fix"]
    told = muster.run("why", "dev-1", "--output", "table").stdout
    assert cause in told and "to fix it" in told, told
    if cause in ("expired-certificate", "common-name-differs", "unknown-ca"):
        assert decision["chain"], decision
    if cause in ("wrong-key", "disabled-entry", "clock-skew"):
        assert [entry["entry"] for entry in decision["considered"]] == ["enrollment dev-1"]
