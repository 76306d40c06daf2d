"""Writes openapi-facts.json: which operations, parameters and members of bodies the published OpenAPI files name.

Usage: openapi-facts.py FOLDER, where FOLDER holds the files of SOURCES. Only names are taken, no text.
"""

import json
import sys
from pathlib import Path

# The API family by the files that describe it, the newest version last: later files add to earlier ones.
SOURCES = {
    "provisioning-service": [
        "dps-service-2017-11-15.azure-iot-sdk-python.json",
        "dps-service-2018-04-01.azure-iot-sdk-python.json",
        "dps-service-2018-09-01-preview.azure-iot-sdk-java.json",
        "dps-service-2021-10-01.azure-rest-api-specs.json",
    ],
    "hub": [
        "iothub-service-2020-09-30.azure-iot-sdk-python.json",
        "iothub-service.azure-iot-hub-python.json",
        "iothub-digitaltwin.azure-iot-sdk-csharp.json",
    ],
}
METHODS = {"get", "put", "post", "patch", "delete", "head", "options"}


def resolved(document: dict, part: dict) -> dict:
    """What a reference into the same document stands for."""
    while "$ref" in part:
        found = document
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


def members(document: dict, schema: dict, within: tuple = ()) -> list[str]:
    """The dotted names of all that a body may hold and a client may write; `*` for an item or any name."""
    name = schema.get("$ref")
    if name in within:
        return []
    schema, within = resolved(document, schema), (*within, name)
    found = []
    for part in schema.get("allOf", []):
        found += members(document, part, within)
    for member, inner in schema.get("properties", {}).items():
        if inner.get("readOnly"):
            continue
        found.append(member)
        found += [f"{member}.{deeper}" for deeper in members(document, inner, within)]
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            found += [f"*.{deeper}" for deeper in members(document, inner, within)]
    return found


def plain(path: str) -> str:
    """A path without the names of its parameters, which differ between files."""
    return "/".join("{}" if step.startswith("{") else step for step in path.split("/"))


def facts(folder: Path) -> dict:
    """By API and operation: what its request may have in each place."""
    apis = {}
    for api, files in SOURCES.items():
        operations = apis.setdefault(api, {})
        for file in files:
            document = json.loads((folder / file).read_text())
            for path, described in document["paths"].items():
                for method in METHODS & described.keys():
                    places = operations.setdefault(f"{method.upper()} {plain(path)}", {})
                    parameters = described.get("parameters", []) + described[method].get("parameters", [])
                    for parameter in (resolved(document, parameter) for parameter in parameters):
                        named = [parameter["name"]]
                        if parameter["in"] == "body":
                            named = members(document, parameter["schema"])
                        elif parameter["in"] == "path":
                            continue
                        places.setdefault(parameter["in"], set()).update(named)
    return apis


if __name__ == "__main__":
    target = Path(__file__).with_suffix(".json")
    written = json.dumps(facts(Path(sys.argv[1])), indent=1, sort_keys=True, default=sorted)
    target.write_text(f"{written}\n")
