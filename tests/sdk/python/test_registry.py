"""azure-iot-hub keeps identities of devices and modules, one by one and in bulk, and twins from stale writers."""

from contextlib import contextmanager
from importlib.metadata import version

import pytest
import requests
from azure.iot.device.exceptions import CredentialError
from azure.iot.hub.models import ExportImportDevice, Twin, TwinProperties
from azure.iot.hub.protocol.models import AuthenticationMechanism, Device
from azure.iot.hub.sastoken import SasToken
from msrest.exceptions import HttpOperationError
from test_hub import connect
from test_operators import CUT_OFF_S, KEY, OTHER_KEY, SERVICE, gone, registry_of

REQUESTS = {"client": "requests", "version": version("requests"), "transport": "https", "credential": "policy"}
STALE = "AAAAAAAAAAk="
THUMB, OTHER_THUMB = "A" * 40, "B" * 40


@contextmanager
def refused(status: int):
    with pytest.raises(HttpOperationError) as raised:
        yield
    assert raised.value.response.status_code == status


@pytest.mark.shows(**SERVICE, feature="identities: by keys, thumbprints and CA, changed from one to another")
def test_an_identity_changes_from_one_credential_to_another(muster):
    registry = registry_of(muster)
    made = registry.create_device_with_certificate_authority("dev-1", "enabled", iot_edge=False)
    assert made.authentication.type == "certificateAuthority"
    keyed = registry.update_device_with_sas("dev-1", made.etag, KEY, OTHER_KEY, "enabled", status_reason="keys")
    assert (keyed.authentication.symmetric_key.secondary_key, keyed.status_reason) == (OTHER_KEY, "keys")
    thumbed = registry.update_device_with_x509("dev-1", keyed.etag, THUMB, OTHER_THUMB, "enabled")
    assert thumbed.authentication.type == "selfSigned"
    assert thumbed.authentication.x509_thumbprint.secondary_thumbprint == OTHER_THUMB
    with refused(412):
        registry.update_device_with_certificate_authority("dev-1", keyed.etag, "enabled")
    trusted = registry.update_device_with_certificate_authority("dev-1", thumbed.etag, "disabled")
    assert (trusted.authentication.type, trusted.status) == ("certificateAuthority", "disabled")
    assert trusted.generation_id == made.generation_id
    edge = registry.create_device_with_sas("edge-1", KEY, OTHER_KEY, "enabled", iot_edge=True)
    assert edge.capabilities.iot_edge is True
    assert edge.device_scope.startswith("ms-azure-iot-edge://edge-1-")
    own = {(module.module_id, module.managed_by) for module in registry.get_modules("edge-1")}
    assert own == {("$edgeAgent", "iotEdge"), ("$edgeHub", "iotEdge")}
    assert len(registry.get_devices(max_number_of_devices=1)) == 1
    with refused(412):
        registry.delete_device("dev-1", STALE)
    registry.delete_device("dev-1", trusted.etag)
    assert [device.device_id for device in registry.get_devices()] == ["edge-1"]


@pytest.mark.shows(**SERVICE, feature="identities: refusals by the names that clients know")
def test_what_is_no_credential_is_refused_by_name(muster):
    registry = registry_of(muster)
    nothing = Device(device_id="dev-1", authentication=AuthenticationMechanism(type="none"))
    cases = [
        ("StringIsNotThumbprint", lambda: registry.create_device_with_x509("dev-1", "AB:CD", THUMB, "enabled")),
        (
            "DeviceAuthenticationTypeIsMissing",
            lambda: registry.protocol.devices.create_or_update_identity("dev-1", nothing),
        ),
    ]
    for name, create in cases:
        with pytest.raises(HttpOperationError) as raised:
            create()
        answer = raised.value.response
        assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, name)
        assert answer.json()["Message"].startswith(f"ErrorCode:{name};")
    assert registry.get_devices() == []


def regenerate(muster, choice: str, *devices: dict) -> tuple[int, dict]:
    """Asks for fresh keys as the CLI does; no SDK has the call."""
    members = dict(member.split("=", 1) for member in muster.hub["connectionString"].split(";"))
    token = SasToken(members["HostName"], members["SharedAccessKey"], members["SharedAccessKeyName"])
    url = f"https://{members['HostName']}/devices/keys/regenerate?api-version=2024-03-31"
    body = {"policyKey": choice, "devices": list(devices)}
    answer = requests.post(url, headers={"Authorization": str(token)}, json=body, timeout=20)
    return answer.status_code, answer.json()


@pytest.mark.shows(**REQUESTS, feature="keys of devices and modules made afresh: the old refused, the fresh let in")
def test_a_fresh_key_lets_a_device_in_and_the_old_one_no_longer(muster):
    registry = registry_of(muster)
    made = registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    registry.create_module_with_sas("dev-1", "mod-1", "", KEY, OTHER_KEY)
    registry.create_device_with_certificate_authority("dev-2", "enabled")
    client = connect(muster, "dev-1", KEY)
    cut_off = gone(client)
    status, told = regenerate(muster, "primaryKey", {"id": "dev-1"})
    assert (status, told["policyKey"], told["errors"]) == (200, "primaryKey", [])
    [fresh] = told["rotatedKeys"]
    assert (fresh["id"], fresh["moduleId"], fresh["secondaryKey"]) == ("dev-1", None, OTHER_KEY)
    assert fresh["primaryKey"] != KEY
    assert cut_off.wait(CUT_OFF_S)
    client.shutdown()
    with pytest.raises(CredentialError):
        connect(muster, "dev-1", KEY)
    for key in (fresh["primaryKey"], OTHER_KEY):
        connect(muster, "dev-1", key).shutdown()
    read = registry.get_device("dev-1")
    assert (read.authentication.symmetric_key.primary_key, read.etag == made.etag) == (fresh["primaryKey"], False)

    status, told = regenerate(muster, "both", {"id": "dev-1", "moduleId": "mod-1"}, {"id": "dev-2"}, {"id": "no"})
    assert (status, [error["id"] for error in told["errors"]]) == (207, ["dev-2", "no"])
    assert [error["errorCode"] for error in told["errors"]] == ["ArgumentInvalid", "DeviceNotFound"]
    [fresh] = told["rotatedKeys"]
    read = registry.get_module("dev-1", "mod-1").authentication.symmetric_key
    assert (fresh["primaryKey"], fresh["secondaryKey"]) == (read.primary_key, read.secondary_key)
    assert not {read.primary_key, read.secondary_key} & {KEY, OTHER_KEY}
    status, told = regenerate(muster, "both", {"id": "no"})
    assert (status, told["rotatedKeys"], len(told["errors"])) == (400, [], 1)
    assert regenerate(muster, "third", {"id": "dev-1"})[0] == 400


@pytest.mark.shows(**SERVICE, feature="identities: bulk create, update, delete, with the errors of each")
def test_devices_are_changed_together_and_errors_are_told_one_by_one(muster):
    registry = registry_of(muster)

    def bulk(mode: str, *names: str, **members):
        return registry.bulk_create_or_update_devices(
            [ExportImportDevice(id=name, import_mode=mode, **members) for name in names]
        )

    made = bulk("create", "dev-1", "dev-2", tags={"place": "cave"}, status="enabled")
    assert (made.is_successful, made.errors, made.warnings) == (True, [], [])
    assert registry.get_twin("dev-2").tags == {"place": "cave"}
    assert bulk("update", "dev-1", "dev-2", status="disabled").is_successful is True
    assert {device.status for device in registry.get_devices()} == {"disabled"}
    again = bulk("create", "dev-2", "dev-3", status="enabled")
    assert again.is_successful is False
    assert [(error.device_id, error.error_code) for error in again.errors] == [("dev-2", "DeviceAlreadyExists")]
    assert registry.get_device("dev-3").status == "enabled"
    stale = bulk("updateIfMatchETag", "dev-1", e_tag=STALE, status="enabled")
    assert [error.error_code for error in stale.errors] == ["PreconditionFailed"]
    assert bulk("delete", "dev-1", "dev-2").is_successful is True
    assert [device.device_id for device in registry.get_devices()] == ["dev-3"]


@pytest.mark.shows(**SERVICE, feature="module identities: create, read, update, list, delete")
def test_modules_live_beside_their_device(muster):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    keyed = registry.create_module_with_sas("dev-1", "by-key", "someone", KEY, OTHER_KEY)
    assert (keyed.device_id, keyed.module_id, keyed.managed_by) == ("dev-1", "by-key", "someone")
    thumbed = registry.create_module_with_x509("dev-1", "by-thumbprint", "", THUMB, OTHER_THUMB)
    trusted = registry.create_module_with_certificate_authority("dev-1", "by-ca", "")
    modules = [keyed, thumbed, trusted]
    assert [module.authentication.type for module in modules] == ["sas", "selfSigned", "certificateAuthority"]
    assert sorted(module.module_id for module in registry.get_modules("dev-1")) == ["by-ca", "by-key", "by-thumbprint"]
    read = registry.get_module("dev-1", "by-key")
    assert (read.etag, read.authentication.symmetric_key.primary_key) == (keyed.etag, KEY)
    with refused(409):
        registry.create_module_with_sas("dev-1", "by-key", "", KEY, OTHER_KEY)
    with refused(412):
        registry.update_module_with_sas("dev-1", "by-key", "", STALE, OTHER_KEY, KEY)
    changed = registry.update_module_with_sas("dev-1", "by-key", "another", keyed.etag, OTHER_KEY, KEY)
    assert (changed.managed_by, changed.authentication.symmetric_key.primary_key) == ("another", OTHER_KEY)
    changed = registry.update_module_with_x509("dev-1", "by-thumbprint", "", thumbed.etag, OTHER_THUMB, THUMB)
    assert changed.authentication.x509_thumbprint.primary_thumbprint == OTHER_THUMB
    changed = registry.update_module_with_certificate_authority("dev-1", "by-ca", "another", trusted.etag)
    assert (changed.managed_by, changed.etag != trusted.etag) == ("another", True)
    with refused(412):
        registry.delete_module("dev-1", "by-ca", trusted.etag)
    registry.delete_module("dev-1", "by-ca", changed.etag)
    with refused(404):
        registry.get_module("dev-1", "by-ca")
    registry.delete_device("dev-1")
    with refused(404):
        registry.get_module("dev-1", "by-key")


@pytest.mark.shows(**SERVICE, feature="twins of devices and modules: patch and replace with an etag")
def test_a_stale_writer_changes_no_twin(muster):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    registry.create_module_with_sas("dev-1", "mod-1", "", KEY, OTHER_KEY)

    def hold(read, update, replace):
        first = read()
        assert (first.version, first.properties.desired["$version"]) == (2, 1)
        change = Twin(tags={"room": {"number": 4}}, properties=TwinProperties(desired={"on": True, "list": [1, {}]}))
        second = update(change, first.etag)
        assert second.etag != first.etag
        for write in (update, replace):
            with refused(412):
                write(Twin(tags={"room": None}), first.etag)
        third = update(Twin(tags={"room": {"shelf": 2}}), second.etag)
        assert third.tags == {"room": {"number": 4, "shelf": 2}}
        assert third.properties.desired["$version"] == 2
        last = replace(Twin(tags={"only": 1}, properties=TwinProperties(desired={"only": 2})), third.etag)
        assert (last.tags, last.properties.desired["$version"]) == ({"only": 1}, 3)
        desired = read().properties.desired
        assert {name: value for name, value in desired.items() if not name.startswith("$")} == {"only": 2}

    module = ("dev-1", "mod-1")
    hold(
        lambda: registry.get_twin("dev-1"),
        lambda twin, etag: registry.update_twin("dev-1", twin, etag),
        lambda twin, etag: registry.replace_twin("dev-1", twin, etag),
    )
    hold(
        lambda: registry.get_module_twin(*module),
        lambda twin, etag: registry.update_module_twin(*module, twin, etag),
        lambda twin, etag: registry.replace_module_twin(*module, twin, etag),
    )
    assert registry.get_module_twin(*module).module_id == "mod-1"


@pytest.mark.shows(**SERVICE, feature="statistics: connected devices")
def test_statistics_count_the_connected_devices(muster):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    registry.create_device_with_sas("dev-2", KEY, OTHER_KEY, "enabled")
    assert registry.get_service_statistics().connected_device_count == 0
    client = connect(muster, "dev-1", KEY)
    assert registry.get_service_statistics().connected_device_count == 1
    assert [registry.get_device(name).connection_state for name in ["dev-1", "dev-2"]] == ["Connected", "Disconnected"]
    client.shutdown()
