"""Jobs: azure-iot-hub has one thing done to many devices, which azure-iot-device hears of."""

import datetime
import time

import pytest
from azure.iot.hub import IoTHubJobManager
from azure.iot.hub.models import (
    CloudToDeviceMethod,
    ExportImportDevice,
    JobRequest,
    QuerySpecification,
    Twin,
    TwinProperties,
)
from msrest.exceptions import HttpOperationError
from test_hub import connect
from test_methods import answering
from test_operators import KEY, OTHER_KEY, SERVICE, registry_of

WITHIN_S = 60
# So many that a job of them is not over before it can be interrupted.
COUNT_KILLED = 2_000
ENDED = ("completed", "failed", "cancelled")


def jobs_of(muster) -> IoTHubJobManager:
    return IoTHubJobManager.from_connection_string(muster.hub["connectionString"])


def make_devices(registry, count: int):
    """Devices with numbers, of which even ones are in the north."""
    names = [f"dev-{number}" for number in range(count)]
    for begin in range(0, count, 100):
        devices = [
            ExportImportDevice(
                id=names[number],
                import_mode="create",
                status="enabled",
                tags={"side": "south" if number % 2 else "north"},
            )
            for number in range(begin, min(begin + 100, count))
        ]
        assert registry.bulk_create_or_update_devices(devices).is_successful is True
    return names


def change(desired: dict, condition: str, **more) -> JobRequest:
    twin = Twin(etag="*", properties=TwinProperties(desired=desired))
    return JobRequest(type="scheduleUpdateTwin", update_twin=twin, query_condition=condition, **more)


def ended(jobs, job_id: str):
    """The job once it has ended: asked again and again, since nobody tells of it."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        job = jobs.get_scheduled_job(job_id)
        if job.status in ENDED:
            return job
    raise AssertionError(jobs.get_scheduled_job(job_id))


def counts(job) -> tuple:
    told = job.device_job_statistics
    assert told.device_count == told.succeeded_count + told.failed_count + told.running_count + told.pending_count
    return told.succeeded_count, told.failed_count, told.running_count + told.pending_count


def rows(registry, condition: str) -> list:
    """Rows of devices.jobs as they came, since the client takes each for a twin."""
    query = QuerySpecification(query=f"SELECT * FROM devices.jobs WHERE {condition}")
    answer = registry.protocol.query.get_twins(query, raw=True)
    assert answer.response.headers["x-ms-item-type"] == "DeviceJob"
    return answer.response.json()


@pytest.mark.shows(**SERVICE, feature="jobs: a change of many twins")
def test_a_job_changes_the_twins_that_fulfil_its_condition_and_no_others(muster):
    registry, jobs = registry_of(muster), jobs_of(muster)
    make_devices(registry, 250)
    request = change({"fan": 7}, "tags.side = 'north'", max_execution_time_in_seconds=60)
    scheduled = jobs.create_scheduled_job("job-1", request)
    assert (scheduled.job_id, scheduled.type, scheduled.status) == ("job-1", "scheduleUpdateTwin", "queued")
    job = ended(jobs, "job-1")
    assert (job.status, counts(job), job.query_condition) == ("completed", (125, 0, 0), "tags.side = 'north'")
    assert job.end_time >= job.start_time >= job.created_time.replace(microsecond=0)
    query = "SELECT deviceId FROM devices WHERE properties.desired.fan = 7 AND tags.side = 'north'"
    changed = registry.protocol.query.get_twins(QuerySpecification(query=query), raw=True).response.json()
    assert len(changed) == 100  # the first page
    query = "SELECT COUNT() AS n FROM devices WHERE properties.desired.fan = 7"
    counted = registry.protocol.query.get_twins(QuerySpecification(query=query), raw=True).response.json()
    assert counted == [{"n": 125}]
    assert registry.get_twin("dev-2").properties.desired["$version"] == 2

    with pytest.raises(HttpOperationError) as raised:
        jobs.create_scheduled_job("job-1", request)
    assert raised.value.response.headers["iothub-errorcode"] == "JobAlreadyExists"


@pytest.mark.shows(**SERVICE, feature="jobs: a method of many devices, and what each answered")
def test_a_job_calls_devices_and_keeps_what_each_answered(muster):
    registry, jobs = registry_of(muster), jobs_of(muster)
    for name in ("dev-1", "dev-2", "dev-3"):
        registry.create_device_with_sas(name, KEY, OTHER_KEY, "enabled")
    clients = [connect(muster, name, KEY, "mqtt") for name in ("dev-1", "dev-2")]
    for number, client in enumerate(clients):
        answering(client, lambda request, number=number: (200 + number, {"said": request.payload}))
    # The client does not tell when it listens: a call waits for it.
    for name in ("dev-1", "dev-2"):
        registry.invoke_device_method(name, CloudToDeviceMethod(method_name="x", connect_timeout_in_seconds=20))
    call = CloudToDeviceMethod(method_name="reboot", payload={"in": 5}, response_timeout_in_seconds=10)
    request = JobRequest(
        type="scheduleDeviceMethod",
        cloud_to_device_method=call,
        query_condition="deviceId IN ['dev-1', 'dev-2', 'dev-3']",
        max_execution_time_in_seconds=60,
    )
    jobs.create_scheduled_job("call-1", request)
    job = ended(jobs, "call-1")
    assert (job.status, counts(job)) == ("completed", (2, 1, 0))
    found = {row["deviceId"]: row for row in rows(registry, "devices.jobs.jobId = 'call-1'")}
    told = {"status": 201, "payload": {"said": {"in": 5}}}
    assert found["dev-2"]["outcome"] == {"deviceMethodResponse": told}
    assert (found["dev-2"]["status"], found["dev-2"]["jobType"]) == ("completed", "scheduleDeviceMethod")
    assert (found["dev-3"]["status"], found["dev-3"]["error"]["code"]) == ("failed", "DeviceNotOnline")
    assert [row["deviceId"] for row in rows(registry, "deviceId = 'dev-3' AND status = 'failed'")] == ["dev-3"]
    for client in clients:
        client.shutdown()


@pytest.mark.shows(**SERVICE, feature="jobs: scheduled, cancelled, unknown")
def test_a_job_waits_for_its_time_and_can_be_cancelled_before(muster):
    registry, jobs = registry_of(muster), jobs_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    jobs.create_scheduled_job("job-1", change({"a": 1}, "*", start_time=later))
    job = jobs.get_scheduled_job("job-1")
    assert (job.status, job.device_job_statistics, abs(job.start_time - later).total_seconds() < 1) == (
        "scheduled",
        None,
        True,
    )
    cancelled = jobs.cancel_scheduled_job("job-1")
    assert cancelled.status == "cancelled"
    assert jobs.get_scheduled_job("job-1").status == "cancelled"
    assert registry.get_twin("dev-1").properties.desired["$version"] == 1

    unknown = jobs.get_scheduled_job("job-2")
    assert (unknown.type, unknown.status) == ("unknown", "unknown")
    with pytest.raises(HttpOperationError) as raised:
        jobs.cancel_scheduled_job("job-2")
    assert raised.value.response.headers["iothub-errorcode"] == "JobNotFound"


@pytest.mark.shows(**SERVICE, feature="jobs: a change goes on after the server was killed, and is made once")
def test_a_job_goes_on_after_a_kill_and_changes_no_twin_twice(muster, tmp_path):
    registry, jobs = registry_of(muster), jobs_of(muster)
    make_devices(registry, COUNT_KILLED)
    jobs.create_scheduled_job("job-1", change({"fan": 7}, "*"))
    until = time.monotonic() + WITHIN_S
    # Asked as fast as it can be: what is told has to be true still when the server is killed.
    while (told := jobs.get_scheduled_job("job-1").device_job_statistics) is None or told.succeeded_count == 0:
        assert time.monotonic() < until, told
    muster.kill()
    left = muster.count_stored(tmp_path, "SELECT COUNT(*) FROM job_device WHERE status = 0")
    assert 0 < left < COUNT_KILLED, "the job had begun, and was not over"
    muster.start()
    registry, jobs = registry_of(muster), jobs_of(muster)
    job = ended(jobs, "job-1")
    assert (job.status, counts(job)) == ("completed", (COUNT_KILLED, 0, 0))
    query = "SELECT COUNT() AS n FROM devices WHERE properties.desired.fan = 7 AND version = 3"
    counted = registry.protocol.query.get_twins(QuerySpecification(query=query), raw=True).response.json()
    assert counted == [{"n": COUNT_KILLED}], "each twin was changed once"
