"""azure-iothub-provisioningserviceclient keeps enrollments, groups and registrations, page by page and in bulk."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from certificates import group_by_intermediate, make_chain
from provisioningserviceclient import ProvisioningServiceError, QuerySpecification
from provisioningserviceclient.models import (
    AttestationMechanism,
    BulkEnrollmentOperation,
    DeviceCapabilities,
    EnrollmentGroup,
    IndividualEnrollment,
    InitialTwin,
    ReprovisionPolicy,
)
from test_provisioning import SERVICE, all_assigned, by_key, derived, service_of

ALL = QuerySpecification(query="SELECT *")
STALE = "c3RhbGU="


def refused(status: int):
    return pytest.raises(ProvisioningServiceError, match=f"Service Error {status}")


def entry(name: str, **members) -> IndividualEnrollment:
    made = IndividualEnrollment.create(name, AttestationMechanism(type="symmetricKey"))
    for member, value in members.items():
        setattr(made, member, value)
    return made


def shows(feature: str):
    return pytest.mark.shows(**SERVICE, transport="https", credential="policy", feature=feature)


@shows("individual enrollments: every member kept, attestation mechanism, delete with an etag")
def test_what_an_enrollment_says_is_kept(muster):
    service = service_of(muster)
    twin = InitialTwin.create(tags={"place": "cave"}, desired_properties={"temperature": 50.123, "nested": {"a": [1]}})
    wanted = entry(
        "dev-1",
        device_id="Device-1",
        initial_twin=twin,
        reprovision_policy=ReprovisionPolicy(update_hub_assignment=True, migrate_device_data=False),
        capabilities=DeviceCapabilities(iot_edge=True),
        allocation_policy="static",
        iot_hubs=[muster.hub["hostName"]],
    )
    made = service.create_or_update(wanted)
    with refused(409):
        service.create_or_update(wanted)
    read = service.get_individual_enrollment("dev-1")
    for shown in (made, read):
        assert (shown.device_id, shown.allocation_policy, shown.iot_hubs) == (
            "Device-1",
            "static",
            [muster.hub["hostName"]],
        )
        assert shown.initial_twin.tags == {"place": "cave"}
        assert shown.initial_twin.desired_properties == {"temperature": 50.123, "nested": {"a": [1]}}
        assert shown.reprovision_policy.migrate_device_data is False
        assert shown.capabilities.iot_edge is True
    assert (read.attestation.symmetric_key, read.registration_state.status) == (None, "unassigned")
    mechanism = service.get_individual_enrollment_attestation_mechanism("dev-1")
    assert mechanism.symmetric_key.primary_key == made.attestation.symmetric_key.primary_key
    made.etag = STALE
    with refused(412):
        service.delete(made)
    service.delete(read)
    with refused(404):
        service.get_individual_enrollment_attestation_mechanism("dev-1")


@shows("enrollment groups: create, read, update, attestation mechanism, query, delete")
def test_groups_live_through_the_service_client(muster, tmp_path):
    service = service_of(muster)
    made = service.create_or_update(EnrollmentGroup.create("keys", AttestationMechanism(type="symmetricKey")))
    read = service.get_enrollment_group("keys")
    assert (read.etag, read.attestation.symmetric_key, read.provisioning_status) == (made.etag, None, "enabled")
    read.provisioning_status = "disabled"
    changed = service.create_or_update(read)
    assert (changed.provisioning_status, changed.created_date_time_utc) == ("disabled", made.created_date_time_utc)
    mechanism = service.get_enrollment_group_attestation_mechanism("keys")
    assert mechanism.symmetric_key.secondary_key == made.attestation.symmetric_key.secondary_key
    make_chain(muster, tmp_path, "cave-1")
    signed = service.create_or_update(group_by_intermediate(tmp_path))
    shown = service.get_enrollment_group_attestation_mechanism(signed.enrollment_group_id)
    primary = shown.x509.signing_certificates.primary
    assert (primary.certificate, primary.info.version) == (None, 3)
    assert len(primary.info.sha256_thumbprint) == 64
    found = [group.enrollment_group_id for page in service.create_enrollment_group_query(ALL) for group in page]
    assert sorted(found) == sorted(["keys", signed.enrollment_group_id])
    with refused(412):
        service.delete_enrollment_group_by_param("keys", made.etag)
    service.delete_enrollment_group_by_param("keys", changed.etag)
    service.delete(signed)
    with refused(404):
        service.get_enrollment_group("keys")


@shows("enrollments: query page by page, and on from a page's continuation token")
def test_enrollments_are_read_page_by_page(muster):
    service = service_of(muster)
    names = [f"dev-{letter}" for letter in "abcde"]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: service_of(muster).create_or_update(entry(name)), names))
    pages = service.create_individual_enrollment_query(ALL, page_size=2)
    read = []
    tokens = []
    for page in pages:
        read.append([found.registration_id for found in page])
        tokens.append(pages.continuation_token)
    assert [len(page) for page in read] == [2, 2, 1]
    assert sorted(name for page in read for name in page) == names
    assert tokens[2] is None and tokens[0] != tokens[1]
    # A token of one query goes on in another, at the size of the other's pages.
    rest = service.create_individual_enrollment_query(ALL, page_size=10).next(tokens[0])
    assert [found.registration_id for found in rest] == read[1] + read[2]
    with refused(400):
        service.create_individual_enrollment_query(ALL).next("no token of ours")
    with refused(400):
        service.create_individual_enrollment_query(QuerySpecification(query="SELECT * WHERE a = 1")).next()


@shows("enrollments: bulk create, update, update by etag, delete, with the errors of each")
def test_enrollments_are_changed_together_and_errors_are_told_one_by_one(muster):
    service = service_of(muster)

    def bulk(mode: str, *entries: IndividualEnrollment):
        result = service.run_bulk_operation(BulkEnrollmentOperation(mode, list(entries)))
        told = [(error.registration_id, error.error_code) for error in result.errors]
        assert result.is_successful is (told == [])
        return told

    assert bulk("create", entry("dev-1"), entry("dev-2", initial_twin=InitialTwin.create(tags={"a": 1}))) == []
    assert bulk("create", entry("dev-2"), entry("dev-3")) == [("dev-2", 409201)]
    first, second, third = (service.get_individual_enrollment(f"dev-{number}") for number in (1, 2, 3))
    assert second.initial_twin.tags == {"a": 1}
    first.provisioning_status = second.provisioning_status = "disabled"
    assert bulk("update", first) == []
    assert bulk("updateIfMatchETag", first, second) == [("dev-1", 412001)]
    found = [service.get_individual_enrollment(f"dev-{number}") for number in (1, 2, 3)]
    assert [read.provisioning_status for read in found] == ["disabled", "disabled", "enabled"]
    assert bulk("delete", entry("dev-1"), entry("dev-2"), third) == []
    assert bulk("delete", entry("dev-1")) == [("dev-1", 404201)]


@shows("registration states: read, delete with an etag")
def test_registration_states_are_read_and_deleted(muster):
    service = service_of(muster)
    group = service.create_or_update(EnrollmentGroup.create("caves", AttestationMechanism(type="symmetricKey")))
    key = group.attestation.symmetric_key.primary_key
    names = ["cave-1", "cave-2"]
    all_assigned(muster, {name: by_key(muster, name, derived(key, name)) for name in names})
    state = service.get_registration_state("cave-1")
    assert (state.registration_id, state.status, state.substatus) == ("cave-1", "assigned", "initialAssignment")
    assert (state.assigned_hub, state.device_id) == (muster.hub["hostName"], "cave-1")
    with refused(412):
        service.delete_registration_state_by_param("cave-1", group.etag)
    service.delete_registration_state_by_param("cave-1", state.etag)
    service.delete(service.get_registration_state("cave-2"))
    for name in names:
        with refused(404):
            service.get_registration_state(name)
