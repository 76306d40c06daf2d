"""Imports and exports: azure-iot-hub has them carried out, and azure-storage-blob writes and reads their files."""

import json
import os
import time
from urllib.parse import unquote_to_bytes

import pytest
from azure.iot.hub import IoTHubConfigurationManager, IoTHubJobManager
from azure.iot.hub.models import Configuration, ConfigurationContent, JobProperties
from azure.storage.blob import BlobClient, ContainerClient
from conftest import Muster
from msrest.exceptions import HttpOperationError
from test_operators import KEY, OTHER_KEY, SERVICE, registry_of
from test_uploads import uploading  # noqa: F401

WITHIN_S = 60
ENDED = ("completed", "failed", "cancelled")
STORAGE = {"client": "azure-storage-blob", "version": "12.31.1", "transport": "https", "credential": "SAS"}


def jobs_of(muster) -> IoTHubJobManager:
    return IoTHubJobManager.from_connection_string(muster.hub["connectionString"])


def container_of(muster) -> str:
    """The address of the hub's own container, as an operator gets it."""
    return muster.command("file", "container")["containerUri"]


def blob(uri: str, name: str) -> BlobClient:
    return ContainerClient.from_container_url(uri, retry_total=0).get_blob_client(name)


def put_lines(uri: str, lines: list, name: str = "devices.txt"):
    text = "".join(json.dumps(line) + "\r\n" for line in lines)
    blob(uri, name).upload_blob(text.encode(), overwrite=True)


def lines_of(uri: str, name: str = "devices.txt") -> list:
    return [json.loads(line) for line in blob(uri, name).download_blob().readall().splitlines()]


def ended(jobs, job_id: str) -> JobProperties:
    """The job once it has ended: asked again and again, since nobody tells of it."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        job = jobs.get_import_export_job(job_id)
        if job.status in ENDED:
            return job
    raise AssertionError(jobs.get_import_export_job(job_id))


def imported(jobs, uri: str, **more) -> JobProperties:
    wanted = JobProperties(type="import", input_blob_container_uri=uri, output_blob_container_uri=uri, **more)
    return ended(jobs, jobs.create_import_export_job(wanted).job_id)


def exported(jobs, uri: str, **more) -> JobProperties:
    wanted = JobProperties(type="export", output_blob_container_uri=uri, **more)
    return ended(jobs, jobs.create_import_export_job(wanted).job_id)


def told(refused) -> tuple:
    """The status and the name of a refusal."""
    answer = refused.value.response
    return answer.status_code, answer.headers["iothub-errorcode"]


def names(lines: list) -> list:
    return sorted(line["id"] + ("/" + line["moduleId"] if "moduleId" in line else "") for line in lines)


@pytest.mark.shows(**SERVICE, feature="import and export: there and back")
@pytest.mark.shows(**STORAGE, feature="files of a container by its signature")
def test_what_is_exported_can_be_imported_again(uploading):
    muster, registry, jobs = uploading, registry_of(uploading), jobs_of(uploading)
    registry.create_device_with_sas("plain", KEY, OTHER_KEY, "disabled", status_reason="broken")
    registry.create_device_with_certificate_authority("trusted", "enabled")
    registry.create_device_with_sas("edge", KEY, KEY, "enabled", iot_edge=True)
    registry.create_module_with_sas("plain", "m", "someone", KEY, KEY)
    registry.update_module_twin("edge", "$edgeAgent", {"properties": {"desired": {"level": 3}}}, "*")
    registry.update_twin("plain", {"tags": {"site": "cave"}, "properties": {"desired": {"fan": {"speed": 7}}}}, "*")

    uri = container_of(muster)
    job = exported(jobs, uri)
    assert (job.type, job.status, job.progress, job.failure_reason) == ("export", "completed", 100, None)
    assert job.end_time_utc >= job.start_time_utc
    assert (job.output_blob_container_uri, job.output_blob_name) == (None, "devices.txt")
    lines = lines_of(uri)
    assert names(lines) == ["edge", "edge/$edgeAgent", "edge/$edgeHub", "plain", "plain/m", "trusted"]
    [plain] = [line for line in lines if names([line]) == ["plain"]]
    assert plain["authentication"]["symmetricKey"] == {"primaryKey": KEY, "secondaryKey": OTHER_KEY}
    assert (plain["status"], plain["statusReason"], plain["tags"]) == ("disabled", "broken", {"site": "cave"})
    assert plain["properties"]["desired"]["fan"] == {"speed": 7}

    job = exported(jobs, uri, exclude_keys_in_export=True, output_blob_name="list/without.txt")
    assert job.exclude_keys_in_export is True
    assert KEY not in json.dumps(lines_of(uri, "list/without.txt"))

    for name in ("plain", "trusted", "edge"):
        registry.delete_device(name, "*")
    job = imported(jobs, uri)
    assert (job.type, job.status, job.failure_reason) == ("import", "completed", None)
    assert lines_of(uri, "importErrors.log") == []
    device = registry.get_device("plain")
    assert (device.status, device.status_reason) == ("disabled", "broken")
    assert device.authentication.symmetric_key.secondary_key == OTHER_KEY
    assert registry.get_device("edge").capabilities.iot_edge is True
    assert registry.get_module_twin("edge", "$edgeAgent").properties.desired["level"] == 3
    assert registry.get_module("plain", "m").managed_by == "someone"
    twin = registry.get_twin("plain")
    assert (twin.tags, twin.properties.desired["fan"]) == ({"site": "cave"}, {"speed": 7})
    exported(jobs, uri, output_blob_name="again.txt")
    assert names(lines_of(uri, "again.txt")) == names(lines)


@pytest.mark.shows(**SERVICE, feature="import and export: configurations")
def test_configurations_go_along_where_that_is_wished(uploading):
    muster, jobs = uploading, jobs_of(uploading)
    manager = IoTHubConfigurationManager.from_connection_string(muster.hub["connectionString"])
    content = ConfigurationContent(device_content={"properties.desired.fan": 7})
    manager.create_configuration(Configuration(id="c-1", content=content, target_condition="*", priority=3))
    uri = container_of(muster)
    job = exported(jobs, uri, include_configurations=True)
    assert (job.status, job.include_configurations, job.configurations_blob_name) == (
        "completed",
        True,
        "configurations.txt",
    )
    [line] = lines_of(uri, "configurations.txt")
    assert (line["id"], line["priority"], line["targetCondition"]) == ("c-1", 3, "*")

    put_lines(uri, [{"id": "dev-1", "importMode": "create"}])
    lines = [{**line, "priority": 4}, {**line, "id": "c-2"}, {**line, "importMode": "create"}, {"id": "c-3"}]
    put_lines(uri, lines, "configurations.txt")
    assert imported(jobs, uri, include_configurations=True).status == "completed"
    faults = lines_of(uri, "importErrors.log")
    assert [(fault["line"], fault["configurationId"], fault["errorCode"]) for fault in faults] == [
        (3, "c-1", "ConfigurationAlreadyExists"),
        (4, "c-3", "ArgumentInvalid"),
    ]
    assert sorted((found.id, found.priority) for found in manager.get_configurations()) == [("c-1", 4), ("c-2", 3)]
    registry, until = registry_of(muster), time.monotonic() + WITHIN_S
    while "fan" not in registry.get_twin("dev-1").properties.desired:
        assert time.monotonic() < until, "what is imported is put into the twins"


@pytest.mark.shows(**SERVICE, feature="import: modes of lines, and what is wrong with them")
def test_each_line_is_carried_out_by_itself(uploading):
    muster, registry, jobs = uploading, registry_of(uploading), jobs_of(uploading)
    for name in ("here", "doomed"):
        registry.create_device_with_sas(name, KEY, KEY, "enabled")
    uri = container_of(muster)
    put_lines(
        uri,
        [
            {"id": "fresh", "importMode": "create", "status": "enabled", "tags": {"a": 1}},
            {"id": "here", "importMode": "create"},
            {"id": "here", "importMode": "update", "status": "disabled", "properties": {"desired": {"x": 1}}},
            {"id": "here", "importMode": "updateIfMatchETag", "eTag": "MA==", "status": "enabled"},
            {"id": "gone", "importMode": "update", "status": "enabled"},
            {"id": "doomed", "importMode": "delete"},
            {"id": "fresh", "importMode": "updateTwin", "tags": {"b": 2}},
            {"id": "fresh", "moduleId": "m", "importMode": "createOrUpdate"},
            {"id": "a b", "importMode": "create"},
            {"id": "whatever", "importMode": "create"},
        ],
    )
    job = imported(jobs, uri)
    assert (job.status, job.failure_reason) == ("completed", None)
    faults = [(fault["line"], fault["deviceId"], fault["errorCode"]) for fault in lines_of(uri, "importErrors.log")]
    assert faults == [
        (2, "here", "DeviceAlreadyExists"),
        (4, "here", "PreconditionFailed"),
        (5, "gone", "DeviceNotFound"),
        (9, "a b", "ArgumentInvalid"),
    ]
    assert registry.get_device("here").status == "disabled"
    assert registry.get_twin("here").properties.desired["x"] == 1
    assert registry.get_twin("fresh").tags == {"a": 1, "b": 2}
    assert registry.get_module("fresh", "m").module_id == "m"
    assert registry.get_device("whatever").device_id == "whatever"
    with pytest.raises(HttpOperationError):
        registry.get_device("doomed")


@pytest.mark.shows(**SERVICE, feature="import and export: one at a time, listed, cancelled, refused")
def test_one_is_carried_out_at_a_time_and_can_be_cancelled(uploading):
    muster, jobs = uploading, jobs_of(uploading)
    uri = container_of(muster)
    put_lines(uri, [{"id": f"dev-{number}", "importMode": "create"} for number in range(20_000)])
    wanted = JobProperties(type="import", input_blob_container_uri=uri, output_blob_container_uri=uri)
    begun = jobs.create_import_export_job(wanted)
    assert begun.status in ("enqueued", "running")
    with pytest.raises(HttpOperationError) as refused:
        jobs.create_import_export_job(wanted)
    assert told(refused) == (403, "JobQuotaExceeded")
    jobs.cancel_import_export_job(begun.job_id)
    assert jobs.get_import_export_job(begun.job_id).status == "cancelled"
    assert exported(jobs, uri, output_blob_name="after.txt").status == "completed"
    assert len(lines_of(uri, "after.txt")) < 20_000
    assert [(job.type, job.status) for job in jobs.get_import_export_jobs()] == [
        ("import", "cancelled"),
        ("export", "completed"),
    ]
    with pytest.raises(HttpOperationError) as refused:
        jobs.get_import_export_job("no-such-job")
    assert refused.value.response.status_code == 404

    bad = [uri.replace("sig=", "sig=A"), uri.split("?")[0], uri.replace("https:", "http:"), "https://127.0.0.1:1/c?sig=x"]
    for address in bad:
        with pytest.raises(HttpOperationError) as refused:
            exported(jobs, address)
        assert told(refused) == (400, "BlobContainerValidationError"), address
    assert imported(jobs, uri, input_blob_name="missing.txt").failure_reason == "The file was not found."


@pytest.mark.shows(**SERVICE, feature="import: goes on after kill -9")
def test_an_import_goes_on_after_a_kill_and_carries_no_line_out_twice(uploading, tmp_path):
    muster, registry, jobs = uploading, registry_of(uploading), jobs_of(uploading)
    uri, count = container_of(muster), 10_000
    put_lines(uri, [{"id": f"dev-{number}", "importMode": "create"} for number in range(count)])
    wanted = JobProperties(type="import", input_blob_container_uri=uri, output_blob_container_uri=uri)
    job_id = jobs.create_import_export_job(wanted).job_id
    until = time.monotonic() + WITHIN_S
    while registry.get_device_registry_statistics().total_device_count < 500:
        assert time.monotonic() < until
    muster.kill()
    made = muster.count_stored(tmp_path, "SELECT COUNT(*) FROM identity")
    assert 0 < made < count, "the import had begun, and was not over"
    signature = uri.partition("sig=")[2].partition("&")[0].encode()
    stored = b"".join(file.read_bytes() for file in muster.folder.glob("muster.db*"))
    assert b"transfer" in stored and signature not in stored and unquote_to_bytes(signature) not in stored
    muster.start()
    jobs = jobs_of(muster)
    assert ended(jobs, job_id).status == "completed"
    assert registry_of(muster).get_device_registry_statistics().total_device_count == count
    assert lines_of(uri, "importErrors.log") == []


@pytest.mark.shows(**SERVICE, feature="import and export: storage elsewhere")
def test_files_may_be_in_a_storage_elsewhere(tmp_path):
    """Another Muster is the storage: by addresses of its own, and by ports of its own."""
    ports = ["--https-port", "0", "--mqtts-port", "0", "--amqps-port", "0", "--admin-port", "0"]
    storage = Muster(tmp_path / "storage", *ports)
    storage.start()
    try:
        storage.command("hub", "create", "second")
        storage.read_endpoints()
        name = "second"
        storage.command("hub", "update", name, "--upload-container", "elsewhere")
        uri = storage.command("file", "container", "--hub", name)["containerUri"]
        put_lines(uri, [{"id": f"dev-{number}", "importMode": "create"} for number in range(100)] + [{"id": "?"}, {}])
        settings = tmp_path / "muster.toml"
        settings.write_text("[outbound]\nprivate = true\n")
        muster = Muster(tmp_path / "muster", "--config", str(settings))
        muster.start()
        try:
            jobs = jobs_of(muster)
            job = imported(jobs, uri)
            assert (job.status, job.failure_reason) == ("completed", None)
            os.environ["SSL_CERT_FILE"] = os.environ["REQUESTS_CA_BUNDLE"] = storage.endpoints["caFile"]
            assert len(lines_of(uri, "importErrors.log")) == 1
            os.environ["SSL_CERT_FILE"] = os.environ["REQUESTS_CA_BUNDLE"] = muster.endpoints["caFile"]
            assert exported(jobs, uri, output_blob_name="out.txt").status == "completed"
            os.environ["SSL_CERT_FILE"] = os.environ["REQUESTS_CA_BUNDLE"] = storage.endpoints["caFile"]
            assert len(lines_of(uri, "out.txt")) == 101
        finally:
            muster.stop()
    finally:
        storage.stop()
