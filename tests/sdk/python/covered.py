"""Which methods of the client packages the tests have used, held against what the packages export.

Every public method of every client class is noted when a call from a test returns without an error. A method is either
used by a test that passed or listed in not-covered.json with the reason.
"""

import functools
import importlib
import inspect
import json
import os
from contextvars import ContextVar
from pathlib import Path

# Where each package says that its clients are. Models and errors are values that clients carry: they call no server.
MODULES = {
    "azure-iot-device": ["azure.iot.device", "azure.iot.device.aio"],
    "azure-iot-hub": ["azure.iot.hub"],
    "azure-iothub-provisioningserviceclient": ["provisioningserviceclient"],
    "azure-mgmt-iothub": [
        "azure.mgmt.iothub",
        "azure.mgmt.iothub.operations",
        "azure.mgmt.iothub.aio",
        "azure.mgmt.iothub.aio.operations",
    ],
    "azure-mgmt-iothubprovisioningservices": [
        "azure.mgmt.iothubprovisioningservices",
        "azure.mgmt.iothubprovisioningservices.operations",
        "azure.mgmt.iothubprovisioningservices.aio",
        "azure.mgmt.iothubprovisioningservices.aio.operations",
    ],
}
# Layers below the clients: what carries, and what a generator wrote for the client's own use.
BELOW = {"models", "protocol"}

# Names the file in which the tests of a run keep their results.
RESULTS = "MUSTER_SDK_RESULTS"

NOT_COVERED = json.loads(Path(__file__).with_name("not-covered.json").read_text(encoding="utf-8"))

# Used by the running test, and by those that passed: package and method.
used = set()
covered = set()

# Whether a method of a client is running: what it calls in turn was not called by the test.
_inside = ContextVar("inside", default=False)


def clients(package: str) -> dict:
    """The client classes that a package exports, by the name that the table gives them."""
    found = {}
    for path in MODULES[package]:
        prefix = "aio." if "aio" in path.split(".") else ""
        for name, owner in vars(importlib.import_module(path)).items():
            if inspect.isclass(owner) and not name.startswith("_") and is_client(owner, package):
                found[prefix + name] = owner
    return found


def is_client(owner: type, package: str) -> bool:
    """Whether a class is one of the package's own that does something, not one that carries something."""
    home = owner.__module__
    own = any(home.startswith(path) for path in MODULES[package])
    return own and not BELOW & set(home.split(".")) and not issubclass(owner, Exception)


def exported(package: str) -> set:
    """Every public method of a package's clients, as `Class.method`."""
    return {f"{name}.{method}" for name, owner in clients(package).items() for method in methods(owner)}


def methods(owner: type) -> list:
    """The public methods of a class, inherited ones included."""
    return [
        name
        for name in dir(owner)
        if not name.startswith("_") and inspect.isroutine(inspect.getattr_static(owner, name))
    ]


def watch():
    """Has every public method of every client noted when it succeeds; the calls themselves are untouched."""
    for package in MODULES:
        for name, owner in clients(package).items():
            for method in methods(owner):
                found = inspect.getattr_static(owner, method)
                key = (package, f"{name}.{method}")
                if isinstance(found, (classmethod, staticmethod)):
                    setattr(owner, method, type(found)(noting(key, found.__func__)))
                else:
                    setattr(owner, method, noting(key, found))


def noting(key: tuple, function):
    """The function, noting its key when it returns to a test."""

    @functools.wraps(function)
    def called(*arguments, **named):
        if _inside.get():
            return function(*arguments, **named)
        token = _inside.set(True)
        try:
            result = function(*arguments, **named)
        finally:
            _inside.reset(token)
        return awaited(key, result) if inspect.iscoroutine(result) else returned(key, result)

    return called


async def awaited(key: tuple, call):
    """What the call comes to, noted when it has."""
    token = _inside.set(True)
    try:
        return returned(key, await call)
    finally:
        _inside.reset(token)


def returned(key: tuple, result):
    """Notes a method that returned; one that returned pages has asked nothing until the first of them is read."""
    if hasattr(result, "__next__") or hasattr(result, "__anext__"):
        return Pages(key, result)
    used.add(key)
    return result


class Pages:
    """Pages or items that a client reads as they are asked for."""

    def __init__(self, key: tuple, pages):
        self._key = key
        self._pages = pages

    def __iter__(self):
        return self

    def __next__(self):
        found = next(self._pages)
        used.add(self._key)
        return found

    def __aiter__(self):
        return self

    async def __anext__(self):
        found = await anext(self._pages)
        used.add(self._key)
        return found

    def __getattr__(self, name: str):
        return getattr(self._pages, name)


def begin():
    """Forgets what a test before this one used, if that has not passed."""
    used.clear()


def covered_by_all() -> set:
    """Package and method of what tests used that passed: of this process, and of those that keep results in one file."""
    path = os.environ.get(RESULTS)
    if path is None or not Path(path).exists():
        return covered
    results = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    kept = [result["methods"] for result in results if result["suite"] == "python"]
    return covered | {(owner, method) for packages in kept for owner, methods in packages.items() for method in methods}


def passed() -> dict:
    """Counts what the running test used as covered, and names it by package."""
    covered.update(used)
    return {package: sorted(method for owner, method in used if owner == package) for package, _ in sorted(used)}
