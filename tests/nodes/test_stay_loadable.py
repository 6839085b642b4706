"""Workflows that were saved once load for ever.

fixtures/schema.json is tests/comfyui/schema.json as it was released, and fixtures/*.json beside it are workflows that were saved
then. Neither is ever renewed; what a release adds is added to them. ComfyUI 0.12.1 has no way to register a replacement for a
node or an input, so nothing may be renamed or taken away: an old node stays, marked as deprecated.
"""

from __future__ import annotations

import copy
import json
from math import inf
from pathlib import Path

import pytest

FIXTURES = Path(__file__).resolve().parents[1] / "comfyui" / "fixtures"
SNAPSHOT = FIXTURES.parent / "schema.json"
SAVED = sorted(FIXTURES.glob("workflows/*.json"))
WIDGETS = ("BOOLEAN", "COMBO", "FLOAT", "INT", "STRING")


def widgets(node: dict) -> list[str]:
    return [name for name, field in node["inputs"].items() if field["type"] in WIDGETS]


def schema_breaks(old: dict, new: dict) -> list[str]:
    """What a workflow that was saved under the `old` schema would miss or misread under the `new` one."""
    found = [f"{name} is gone" for name in old.keys() - new.keys()]
    for name in old.keys() & new.keys():
        before, after = old[name], new[name]
        for field in before["inputs"]:
            if field not in after["inputs"]:
                found.append(f"{name}.{field} is gone")
            else:
                found += [f"{name}.{field} {wrong}" for wrong in _field_breaks(before["inputs"][field], after["inputs"][field])]
        for field in after["inputs"].keys() - before["inputs"].keys():
            if not after["inputs"][field]["optional"]:
                found.append(f"{name}.{field} is new and required")
        if widgets(after)[: len(widgets(before))] != widgets(before):
            found.append(f"{name}: values of widgets are saved by their order, so that new ones have to follow the old ones")
        if after["outputs"][: len(before["outputs"])] != before["outputs"]:
            found.append(f"{name}: outputs are saved by their number, so that new ones have to follow the old ones")
    return sorted(found)


def _field_breaks(before: dict, after: dict) -> list[str]:
    found = []
    if not set(before["type"].split(",")) <= set(after["type"].split(",")):
        found.append(f"takes {after['type']} no longer {before['type']}")
    if before["optional"] and not after["optional"]:
        found.append("is required now")
    found += [f"has lost its option {option}" for option in before.get("options", []) if option not in after.get("options", [])]
    if after.get("min", -inf) > before.get("min", -inf) or after.get("max", inf) < before.get("max", inf):
        found.append("has a narrower range")
    return found


def workflow_breaks(workflow: dict, schema: dict) -> list[str]:
    """What a saved workflow has that the nodes of the schema have not. Nodes of others are not looked at."""
    found = []
    for node in workflow["nodes"]:
        if not node["type"].startswith("ExpPortrait"):
            continue
        if node["type"] not in schema:
            found.append(f"there is no {node['type']}")
            continue
        known = schema[node["type"]]
        linked = {entry["name"] for entry in node["inputs"]}
        found += [f"{node['type']} has no input {name}" for name in linked - known["inputs"].keys()]
        outputs = [[entry["name"], entry["type"]] for entry in node.get("outputs") or []]
        if known["outputs"][: len(outputs)] != outputs:
            found.append(f"{node['type']} has other outputs")
        for name, value in zip(widgets(known), node.get("widgets_values", [])):
            field = known["inputs"][name]
            if field["type"] == "COMBO" and "options" in field and value not in field["options"]:
                found.append(f"{node['type']}.{name} has no option {value}")
            elif field["type"] in ("FLOAT", "INT") and not field["min"] <= value <= field["max"]:
                found.append(f"{node['type']}.{name} cannot be {value}")
    return found


@pytest.fixture(scope="module")
def schema() -> dict:
    return json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_nothing_that_was_released_is_gone(schema):
    assert schema_breaks(json.loads((FIXTURES / "schema.json").read_text(encoding="utf-8")), schema) == []


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_saved_workflows_fit_the_nodes_of_today(path, schema):
    assert workflow_breaks(json.loads(path.read_text(encoding="utf-8")), schema) == []


def test_shipped_workflows_fit_the_schema_and_were_saved_as_fixtures(root, schema):
    shipped = sorted((root / "workflows").glob("*.json"))
    assert {path.name for path in shipped} <= {path.name for path in SAVED}
    for path in shipped:
        assert workflow_breaks(json.loads(path.read_text(encoding="utf-8")), schema) == [], path.name


OLD = {
    "A": {
        "inputs": {
            "head": {"type": "HEAD", "optional": False},
            "map": {"type": "COMBO", "optional": False, "options": ["x", "y"]},
            "size": {"type": "INT", "optional": True, "min": 0, "max": 9},
        },
        "outputs": [["images", "IMAGE"], ["mask", "MASK"]],
    }
}


def changed(change) -> dict:
    new = copy.deepcopy(OLD)
    change(new)
    return new


def test_additions_at_the_end_break_nothing():
    def add(new):
        new["B"] = new["A"]
        new["A"]["inputs"]["head"]["type"] = "HEAD,MOTION"
        new["A"]["inputs"]["map"]["options"].insert(0, "z")
        new["A"]["inputs"]["size"]["max"] = 99
        new["A"]["inputs"] |= {"more": {"type": "FLOAT", "optional": True}, "mask": {"type": "MASK", "optional": True}}
        new["A"]["outputs"].append(["fps", "FLOAT"])

    assert schema_breaks(OLD, changed(add)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda new: new.update(B=new.pop("A")), "A is gone"),
        (lambda new: new["A"]["inputs"].update(person=new["A"]["inputs"].pop("head")), "A.head is gone"),
        (lambda new: new["A"]["inputs"]["map"]["options"].remove("y"), "lost its option y"),
        (lambda new: new["A"]["inputs"]["head"].update(type="FACE"), "no longer HEAD"),
        (lambda new: new["A"]["inputs"]["size"].update(max=5), "narrower"),
        (lambda new: new["A"]["inputs"]["size"].update(optional=False), "required now"),
        (lambda new: new["A"]["inputs"].update(extra={"type": "MASK", "optional": False}), "new and required"),
        (lambda new: new["A"].update(inputs={"first": {"type": "INT", "optional": True}} | new["A"]["inputs"]), "by their order"),
        (lambda new: new["A"]["outputs"].reverse(), "by their number"),
    ],
)
def test_what_breaks_saved_workflows_is_told(change, told):
    assert any(told in line for line in schema_breaks(OLD, changed(change)))


def test_a_workflow_that_does_not_fit_is_told():
    node = {"type": "ExpPortraitA", "inputs": [{"name": "head"}, {"name": "gone"}], "outputs": [{"name": "mask", "type": "MASK"}]}
    workflow = {"nodes": [node | {"widgets_values": ["q", 12]}, {"type": "ExpPortraitB", "inputs": []}, {"type": "LoadImage"}]}
    assert workflow_breaks(workflow, {"ExpPortraitA": OLD["A"]}) == [
        "ExpPortraitA has no input gone",
        "ExpPortraitA has other outputs",
        "ExpPortraitA.map has no option q",
        "ExpPortraitA.size cannot be 12",
        "there is no ExpPortraitB",
    ]
