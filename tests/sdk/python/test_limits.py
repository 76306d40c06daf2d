"""What happens where there are as many as there may be: refused by name, passed over, and all that was made is listed."""

import pytest
from azure.core.exceptions import HttpResponseError
from azure.iot.device.exceptions import ClientError
from azure.iot.hub.models import ExportImportDevice
from certificates import make
from msrest.exceptions import HttpOperationError
from provisioningserviceclient import ProvisioningServiceError
from provisioningserviceclient.models import CustomAllocationDefinition, EnrollmentGroup
from test_enrollments import entry
from test_management import GROUP, MANAGEMENT, described, management_of
from test_operators import KEY, OTHER_KEY, SERVICE, registry_of
from test_provisioning import DEVICE, by_key, service_of
from test_provisioning import SERVICE as PROVISIONING
from test_reprovisioning import with_two_hubs

MODULES_MAX = 50
BULK_MAX = 100
NOT_ALLOWED = 4


@pytest.fixture
def muster_limited(muster_with, tmp_path):
    """Starts a server with quotas of the test's own."""

    def start(**limits: int):
        config = tmp_path / "muster.toml"
        config.write_text("[quotas]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items()))
        return muster_with("--config", str(config))

    return start


def refused(status: int, code: str):
    """An error of the hub with its status, and its code where clients look for it."""

    def told(error) -> bool:
        answer = error.response
        return (answer.status_code, answer.headers["iothub-errorcode"]) == (status, code)

    return pytest.raises(HttpOperationError, check=told)


@pytest.mark.shows(**SERVICE, feature="identities: 100 in bulk, and no more")
def test_a_bulk_request_of_too_many_devices_changes_nothing(muster):
    registry = registry_of(muster)
    devices = [ExportImportDevice(id=f"dev-{number}", import_mode="create") for number in range(BULK_MAX + 1)]
    with refused(413, "TooManyDevices"):
        registry.bulk_create_or_update_devices(devices)
    assert registry.get_devices() == []
    assert registry.bulk_create_or_update_devices(devices[1:]).is_successful is True
    assert len(registry.get_devices(max_number_of_devices=BULK_MAX + 1)) == BULK_MAX


@pytest.mark.shows(**SERVICE, feature="module identities: 50 of a device, all listed")
def test_a_device_has_so_many_modules_and_lists_them_all(muster):
    registry = registry_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    for number in range(MODULES_MAX):
        registry.create_module_with_sas("dev-1", f"mod-{number}", "", KEY, OTHER_KEY)
    with refused(413, "TooManyModulesOnDevice"):
        registry.create_module_with_sas("dev-1", "mod-more", "", KEY, OTHER_KEY)
    with refused(409, "ModuleAlreadyExistsOnDevice"):
        registry.create_module_with_sas("dev-1", "mod-0", "", KEY, OTHER_KEY)
    assert len(registry.get_modules("dev-1")) == MODULES_MAX
    registry.delete_module("dev-1", "mod-0")
    registry.create_module_with_sas("dev-1", "mod-more", "", KEY, OTHER_KEY)


def register(muster, name: str):
    """Enrolls a device, if it is not, and has it registered; what its record says then."""
    service = service_of(muster)
    try:
        made = service.get_individual_enrollment(name)
    except ProvisioningServiceError:
        made = service.create_or_update(entry(name))
    keys = service.get_individual_enrollment_attestation_mechanism(made.registration_id)
    try:
        by_key(muster, name, keys.symmetric_key.primary_key).register()
    except ClientError:
        pass
    return service.get_registration_state(name)


@pytest.mark.shows(**DEVICE, transport="mqtt", credential="symmetric key", feature="full hubs are passed over")
def test_full_hubs_are_passed_over_and_those_who_live_there_stay(muster_limited):
    muster = muster_limited(devices_per_hub=1)
    with_two_hubs(muster)
    first, second, third = [register(muster, f"dev-{number}") for number in range(3)]
    assert [first.status, second.status, third.status] == ["assigned", "assigned", "failed"]
    assert first.assigned_hub != second.assigned_hub
    assert third.error_code == 403002
    again = register(muster, "dev-0")
    assert (again.status, again.assigned_hub) == ("assigned", first.assigned_hub)
    registry = registry_of(muster)
    with refused(413, "TooManyDevices"):
        registry.create_device_with_sas("dev-9", KEY, OTHER_KEY, "enabled")
    [lives_here] = registry.get_devices()
    registry.delete_device(lives_here.device_id)
    assert register(muster, "dev-2").status == "assigned"


@pytest.mark.shows(**DEVICE, transport="mqtt", credential="symmetric key", feature="custom allocation fails by its own code")
def test_a_custom_allocation_fails_by_its_own_code(muster):
    webhook = CustomAllocationDefinition(webhook_url="https://allocate.example.org/", api_version="2021-10-01")
    custom = entry("dev-1", allocation_policy="custom", custom_allocation_definition=webhook)
    service_of(muster).create_or_update(custom)
    state = register(muster, "dev-1")
    assert (state.status, state.error_code) == ("failed", 400207)
    assert "custom allocation failed" in state.error_message


@pytest.mark.shows(**PROVISIONING, transport="https", credential="policy", feature="enrollments and groups up to a limit")
def test_enrollments_and_groups_are_made_up_to_a_limit(muster_limited):
    service = service_of(muster_limited(enrollments=2, enrollment_groups=1))
    group = entry("of-keys").attestation
    full = pytest.raises(ProvisioningServiceError, match="Service Error 403")
    for name in ["dev-1", "dev-2"]:
        service.create_or_update(entry(name))
    with full:
        service.create_or_update(entry("dev-3"))
    service.create_or_update(EnrollmentGroup.create("of-keys", group))
    with full:
        service.create_or_update(EnrollmentGroup.create("others", group))
    service.create_or_update(service.get_individual_enrollment("dev-1"))
    service.delete_individual_enrollment_by_param("dev-1")
    service.create_or_update(entry("dev-3"))


@pytest.mark.shows(**MANAGEMENT, feature="CA certificates and linked hubs up to a limit")
def test_certificates_and_links_are_made_up_to_a_limit(muster_limited, tmp_path):
    muster = muster_limited(ca_certificates=1, linked_hubs=1)
    make(muster, tmp_path, "root", "root")
    root = str(tmp_path / "root.pem")
    for owner in [("--dps", "dps"), ("--hub", "hub")]:
        muster.command("certificate", "create", "first", *owner, "--path", root)
        muster.command("certificate", "create", "first", *owner, "--path", root)
        full = muster.run("certificate", "create", "second", *owner, "--path", root)
        assert full.returncode == NOT_ALLOWED and "at most 1 CA certificates" in full.stderr
    muster.command("hub", "create", "hub2")
    full = muster.run("linked-hub", "create", "--dps", "dps", "--hub", "hub2")
    assert full.returncode == NOT_ALLOWED and "At most 1 hubs" in full.stderr
    assert len(muster.command("linked-hub", "list", "--dps", "dps")) == 1


@pytest.mark.shows(**MANAGEMENT, feature="a version is demanded only of what is there")
def test_a_version_cannot_be_demanded_of_what_is_not_there(muster):
    management = management_of(muster)
    for demanded in ["*", '"AAAAAAAAAAE="']:
        with pytest.raises(HttpResponseError) as refusal:
            headers = {"If-Match": demanded}
            management.iot_dps_resource.begin_create_or_update(GROUP, "second", described(), headers=headers)
        assert refusal.value.status_code == 412
    assert [service.name for service in management.iot_dps_resource.list_by_subscription()] == ["dps"]
    assert management.iot_dps_resource.begin_create_or_update(GROUP, "second", described()).result().name == "second"
