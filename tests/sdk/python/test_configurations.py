"""Configurations: azure-iot-hub puts content into the twins that fulfil a condition, and azure-iot-device hears of it."""

import queue
import time

import pytest
from azure.iot.device import IoTHubModuleClient
from azure.iot.hub import IoTHubConfigurationManager
from azure.iot.hub.models import (
    AuthenticationMechanism,
    Configuration,
    ConfigurationContent,
    ConfigurationMetrics,
    ConfigurationQueriesTestInput,
    Device,
    DeviceCapabilities,
    QuerySpecification,
    SymmetricKey,
    Twin,
    TwinProperties,
)
from msrest.exceptions import HttpOperationError
from test_hub import at_hub, connect
from test_jobs import COUNT_KILLED, make_devices
from test_operators import KEY, OTHER_KEY, SERVICE, registry_of

WITHIN_S = 30


def configurations_of(muster) -> IoTHubConfigurationManager:
    return IoTHubConfigurationManager.from_connection_string(muster.hub["connectionString"])


def configuration(name: str, fan: int, target: str, priority: int = 0, **more) -> Configuration:
    content = ConfigurationContent(device_content={"properties.desired.fan": {"speed": fan}})
    return Configuration(id=name, content=content, target_condition=target, priority=priority, **more)


def until(found, wanted):
    """Asks until it is so: nobody tells when a configuration has come everywhere."""
    end = time.monotonic() + WITHIN_S
    while (answer := found()) != wanted:
        assert time.monotonic() < end, f"{answer!r} is not {wanted!r}"
    return answer


def speed(registry, device: str):
    desired = registry.get_twin(device).properties.desired
    return desired.get("fan", {}).get("speed")


def counts(configurations, name: str) -> dict:
    return configurations.get_configuration(name).system_metrics.results


def refused(call) -> tuple:
    with pytest.raises(HttpOperationError) as raised:
        call()
    return raised.value.response.status_code, raised.value.response.headers["iothub-errorcode"]


@pytest.mark.shows(**SERVICE, feature="configurations: applied by condition and priority, withdrawn")
def test_of_the_configurations_that_a_twin_fulfils_the_highest_applies(muster):
    registry, configurations = registry_of(muster), configurations_of(muster)
    for name in ("dev-1", "dev-2", "dev-3"):
        registry.create_device_with_sas(name, KEY, OTHER_KEY, "enabled")
    registry.update_twin("dev-1", Twin(tags={"site": "cave"}))
    device = connect(muster, "dev-1", KEY)
    told = queue.Queue()
    device.on_twin_desired_properties_patch_received = told.put
    configurations.create_configuration(configuration("all", 1, "deviceId IN ['dev-1', 'dev-2']"))
    until(lambda: speed(registry, "dev-1"), 1)
    until(lambda: counts(configurations, "all"), {"targetedCount": 2, "appliedCount": 2})
    assert told.get(timeout=WITHIN_S)["fan"] == {"speed": 1}
    assert speed(registry, "dev-3") is None

    configurations.create_configuration(configuration("caves", 2, "tags.site = 'cave'", priority=10))
    until(lambda: speed(registry, "dev-1"), 2)
    until(lambda: counts(configurations, "all"), {"targetedCount": 2, "appliedCount": 1})
    assert told.get(timeout=WITHIN_S)["fan"] == {"speed": 2}
    # A twin that changes is judged anew.
    registry.update_twin("dev-2", Twin(tags={"site": "cave"}))
    until(lambda: speed(registry, "dev-2"), 2)
    registry.update_twin("dev-1", Twin(tags={"site": "barn"}))
    until(lambda: speed(registry, "dev-1"), 1)
    # A device that comes is, too.
    registry.create_device_with_sas("dev-4", KEY, OTHER_KEY, "enabled")
    registry.update_twin("dev-4", Twin(tags={"site": "cave"}))
    until(lambda: speed(registry, "dev-4"), 2)
    until(lambda: counts(configurations, "caves"), {"targetedCount": 2, "appliedCount": 2})
    registry.delete_device("dev-4")
    until(lambda: counts(configurations, "caves"), {"targetedCount": 1, "appliedCount": 1})

    configurations.delete_configuration("caves")
    until(lambda: speed(registry, "dev-2"), 1)
    configurations.delete_configuration("all")
    until(lambda: [speed(registry, name) for name in ("dev-1", "dev-2")], [None, None])
    device.shutdown()


@pytest.mark.shows(**SERVICE, feature="configurations: created, read, listed, updated by etag, metrics, tested")
def test_a_configuration_lives_through_its_manager(muster):
    registry, configurations = registry_of(muster), configurations_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    metrics = ConfigurationMetrics(queries={"known": "SELECT deviceId FROM devices WHERE status = 'enabled'"})
    wanted = configuration("c", 1, "", labels={"team": "cheese"}, schema_version="1.0", metrics=metrics)
    made = configurations.create_configuration(wanted)
    assert (made.labels, made.target_condition, made.priority) == ({"team": "cheese"}, "", 0)
    assert made.metrics.results == {"known": 1}
    read = configurations.get_configuration("c")
    assert (read.etag, read.content.device_content) == (made.etag, {"properties.desired.fan": {"speed": 1}})
    assert refused(lambda: configurations.create_configuration(wanted)) == (409, "ConfigurationAlreadyExists")

    read.target_condition, read.priority = "*", 7
    changed = configurations.update_configuration(read, f'"{read.etag}"')
    assert (changed.priority, changed.target_condition) == (7, "*") and changed.etag != made.etag
    until(lambda: counts(configurations, "c"), {"targetedCount": 1, "appliedCount": 1})
    stale = refused(lambda: configurations.update_configuration(read, f'"{made.etag}"'))
    assert stale == (412, "PreconditionFailed")
    # The content is not changed, and has to be there.
    again = configuration("c", 99, "*", priority=7)
    kept = configurations.update_configuration(again, '"*"')
    assert kept.content.device_content == {"properties.desired.fan": {"speed": 1}}
    bare = Configuration(id="c", target_condition="*")
    assert refused(lambda: configurations.update_configuration(bare, '"*"')) == (400, "InvalidConfigurationContent")
    assert [found.id for found in configurations.get_configurations(10)] == ["c"]

    query = ConfigurationQueriesTestInput(
        target_condition="tags.a =", custom_metric_queries={"good": "SELECT * FROM devices", "bad": "SELECT"}
    )
    tested = configurations.test_configuration_queries(query)
    assert "target condition" in tested.target_condition_error and list(tested.custom_metric_query_errors) == ["bad"]
    configurations.delete_configuration("c", f'"{kept.etag}"')
    assert refused(lambda: configurations.get_configuration("c")) == (404, "ConfigurationNotFound")


AGENT = {"properties.desired": {"schemaVersion": "1.1", "modules": {"sensor": {"version": "1.0"}}}}
MODULES = {"$edgeAgent": AGENT, "sensor": {"properties.desired.rate": 5}}


def make_edge_device(muster, name: str):
    """Creates an edge device, which the manager has no way to."""
    registry = registry_of(muster)
    keys = SymmetricKey(primary_key=KEY, secondary_key=OTHER_KEY)
    device = Device(
        device_id=name,
        status="enabled",
        authentication=AuthenticationMechanism(type="sas", symmetric_key=keys),
        capabilities=DeviceCapabilities(iot_edge=True),
    )
    registry.protocol.devices.create_or_update_identity(name, device)
    return registry


@pytest.mark.shows(**SERVICE, feature="deployments: content for the modules of edge devices")
def test_a_deployment_reaches_the_modules_of_edge_devices_and_makes_them(muster):
    registry, configurations = make_edge_device(muster, "edge-1"), configurations_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    deployment = Configuration(
        id="deployment", content=ConfigurationContent(modules_content=MODULES), target_condition="*", priority=1
    )
    configurations.create_configuration(deployment)

    def rate():
        names = [module.module_id for module in registry.get_modules("edge-1")]
        return "sensor" in names and registry.get_module_twin("edge-1", "sensor").properties.desired.get("rate")

    until(rate, 5)
    agent = registry.get_module_twin("edge-1", "$edgeAgent").properties.desired
    assert agent["modules"] == {"sensor": {"version": "1.0"}}
    reported = {"reportedSuccessfulCount": 0, "reportedFailedCount": 0}
    assert counts(configurations, "deployment") == {"targetedCount": 1, "appliedCount": 1, **reported}
    assert registry.get_modules("dev-1") == []


@pytest.mark.shows(**SERVICE, feature="deployments: what edge agents report of them is counted")
def test_what_edge_agents_report_of_a_deployment_is_counted(muster):
    names = ["edge-1", "edge-2", "edge-3"]
    registries = [make_edge_device(muster, name) for name in names]
    registry, configurations = registries[0], configurations_of(muster)
    content = ConfigurationContent(modules_content=MODULES)
    deployment = Configuration(id="deployment", content=content, target_condition="*", priority=1)
    configurations.create_configuration(deployment)

    def reported():
        results = counts(configurations, "deployment")
        return [results[f"reported{what}Count"] for what in ("Successful", "Failed")]

    until(lambda: counts(configurations, "deployment")["appliedCount"], 3)
    assert reported() == [0, 0]
    agents = {name: connect_agent(muster, registry, name) for name in names}

    def report(name, code, behind=0):
        version = registry.get_module_twin(name, "$edgeAgent").properties.desired["$version"]
        status = {"lastDesiredVersion": version - behind, "lastDesiredStatus": {"code": code, "description": ""}}
        agents[name].patch_twin_reported_properties(status)

    report("edge-1", 200)
    report("edge-2", 400)
    report("edge-3", 200, behind=1)
    assert reported() == [1, 1]
    queries = configurations.get_configuration("deployment").system_metrics.queries
    found = registry.query_iot_hub(QuerySpecification(query=queries["reportedSuccessfulCount"])).items
    assert [twin.device_id for twin in found] == ["edge-1"]
    # What it reported is about what was wanted before.
    registry.update_module_twin("edge-1", "$edgeAgent", Twin(properties=TwinProperties(desired={"more": 1})))
    assert reported() == [0, 1]
    report("edge-1", 500)
    report("edge-3", 200)
    assert reported() == [1, 2]
    configurations.delete_configuration("deployment")
    until(lambda: registry.get_module_twin("edge-3", "$edgeAgent").additional_properties.get("configurations"), None)
    for agent in agents.values():
        agent.shutdown()


def connect_agent(muster, registry, name: str) -> IoTHubModuleClient:
    """As an edge device's runtime does, which gives the agent its keys."""
    registry.update_module_with_sas(name, "$edgeAgent", "iotEdge", "*", KEY, OTHER_KEY)
    host = at_hub(muster, name, "mqtt")["hostname"]
    text = f"HostName={host};DeviceId={name};ModuleId=$edgeAgent;SharedAccessKey={KEY}"
    client = IoTHubModuleClient.create_from_connection_string(text, server_verification_cert=muster.authority)
    client.connect()
    return client


@pytest.mark.shows(**SERVICE, feature="deployments: content for one edge device")
def test_content_is_applied_to_one_edge_device_alone(muster):
    registry, configurations = make_edge_device(muster, "edge-1"), configurations_of(muster)
    registry.create_device_with_sas("dev-1", KEY, OTHER_KEY, "enabled")
    content = ConfigurationContent(modules_content=MODULES)
    configurations.apply_configuration_on_edge_device("edge-1", content)
    assert registry.get_module_twin("edge-1", "sensor").properties.desired["rate"] == 5
    assert registry.get_module("edge-1", "sensor").managed_by == "iotEdge"
    refusals = [
        refused(lambda: configurations.apply_configuration_on_edge_device(name, content)) for name in ("dev-1", "dev-2")
    ]
    assert refusals == [(400, "ArgumentInvalid"), (404, "DeviceNotFound")]


@pytest.mark.shows(**SERVICE, feature="configurations: a sweep goes on after the server was killed")
def test_a_configuration_comes_everywhere_also_if_the_server_is_killed(muster, tmp_path):
    registry, configurations = registry_of(muster), configurations_of(muster)
    make_devices(registry, COUNT_KILLED)
    configurations.create_configuration(configuration("c", 7, "tags.side = 'north'"))
    until(lambda: counts(configurations, "c")["appliedCount"] > 0, True)
    muster.kill()
    put = muster.count_stored(tmp_path, "SELECT COUNT(*) FROM configuration_put")
    assert 0 < put < COUNT_KILLED // 2, "the sweep had begun, and was not over"
    muster.start()
    registry, configurations = registry_of(muster), configurations_of(muster)
    until(lambda: counts(configurations, "c"), {"targetedCount": COUNT_KILLED // 2, "appliedCount": COUNT_KILLED // 2})
    assert (speed(registry, f"dev-{COUNT_KILLED - 2}"), speed(registry, f"dev-{COUNT_KILLED - 1}")) == (7, None)
    assert registry.get_twin("dev-0").properties.desired["$version"] == 2, "it was changed once"
