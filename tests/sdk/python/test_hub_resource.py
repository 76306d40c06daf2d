"""azure-mgmt-iothub at a hub's resource: identities are exported and imported by who may manage the deployment."""

import time
from importlib.metadata import version

import pytest
import requests
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.iothub import IotHubClient
from azure.mgmt.iothub.models import ExportDevicesRequest, ImportDevicesRequest, JobResponse
from azure.mgmt.iothub.operations import IotHubResourceOperations
from test_management import GROUP, management_of
from test_operators import KEY, OTHER_KEY, registry_of
from test_transfers import ENDED, WITHIN_S, container_of, jobs_of, lines_of, put_lines
from test_uploads import uploading  # noqa: F401

MANAGEMENT = {
    "client": "azure-mgmt-iothub",
    "version": version("azure-mgmt-iothub"),
    "transport": "https",
    "credential": "client secret",
}


def hubs_of(muster) -> IotHubClient:
    return management_of(muster, kind=IotHubClient)


def resource_of(muster) -> IotHubResourceOperations:
    return hubs_of(muster).iot_hub_resource


def ended(resource: IotHubResourceOperations, hub: str, job_id: str) -> JobResponse:
    """The job once it has ended: asked again and again, since nobody tells of it."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        job = resource.get_job(GROUP, hub, job_id)
        if job.status in ENDED:
            return job
    raise AssertionError(resource.get_job(GROUP, hub, job_id))


@pytest.mark.shows(**MANAGEMENT, feature="import and export at the hub's resource, and their jobs")
def test_identities_go_there_and_back_by_the_hubs_resource(uploading):
    muster, hub, registry, resource = uploading, uploading.hub["name"], registry_of(uploading), resource_of(uploading)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    uri = container_of(muster)
    wanted = ExportDevicesRequest(export_blob_container_uri=uri, exclude_keys=True, export_blob_name="all.txt")
    begun = resource.export_devices(GROUP, hub, wanted)
    out = ended(resource, hub, begun.job_id)
    assert (out.job_id, out.type, out.status, out.failure_reason) == (begun.job_id, "export", "completed", None)
    assert out.end_time_utc >= out.start_time_utc
    [line] = lines_of(uri, "all.txt")
    assert (line["id"], line["authentication"]["symmetricKey"]["primaryKey"]) == ("dev-1", None)

    put_lines(uri, [{"id": name, "importMode": "create"} for name in ("dev-1", "dev-2")])
    wanted = ImportDevicesRequest(input_blob_container_uri=uri, output_blob_container_uri=uri)
    into = ended(resource, hub, resource.import_devices(GROUP, hub, wanted).job_id)
    assert (into.type, into.status) == ("import", "completed")
    assert registry.get_device("dev-2").device_id == "dev-2"
    assert [line["deviceId"] for line in lines_of(uri, "importErrors.log")] == ["dev-1"]
    # They are the jobs of the service API.
    assert [job.job_id for job in resource.list_jobs(GROUP, hub)] == [out.job_id, into.job_id]
    assert [job.job_id for job in jobs_of(muster).get_import_export_jobs()] == [out.job_id, into.job_id]


@pytest.mark.shows(**MANAGEMENT, feature="import and export at the hub's resource: refused in words")
def test_what_cannot_be_exported_is_refused_by_the_hubs_resource(uploading):
    muster, hub, resource = uploading, uploading.hub["name"], resource_of(uploading)
    uri = container_of(muster)
    refused = [
        ({"export_blob_container_uri": uri, "authentication_type": "identityBased"}, 400, "keyBased"),
        ({"export_blob_container_uri": "https://127.0.0.1:1/out?sig=x"}, 400, "The container at 127.0.0.1 is of no use"),
    ]
    for wanted, status, words in refused:
        with pytest.raises(HttpResponseError, match=words) as told:
            resource.export_devices(GROUP, hub, ExportDevicesRequest(exclude_keys=True, **wanted))
        assert told.value.status_code == status
    wanted = ExportDevicesRequest(export_blob_container_uri=uri, exclude_keys=True)
    with pytest.raises(ResourceNotFoundError, match="hub was not found"):
        resource.export_devices(GROUP, "another", wanted)
    with pytest.raises(ResourceNotFoundError, match="no such job"):
        resource.get_job(GROUP, hub, "another")
    admin = muster.endpoints["admin"]
    place = f"subscriptions/{admin['subscriptionId']}/resourceGroups/{GROUP}/providers/Microsoft.Devices/IotHubs/{hub}"
    url = f"{admin['url']}/{place}/exportDevices?api-version=2023-06-30"
    body = {"exportBlobContainerUri": uri, "excludeKeys": True}
    assert requests.post(url, json=body, timeout=20).status_code == 401
    assert list(resource.list_jobs(GROUP, hub)) == []
