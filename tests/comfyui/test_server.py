"""The pack in a running ComfyUI: it loads, its nodes keep their sockets, its pages are served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SNAPSHOT = Path(__file__).with_name("schema.json")
FILE_LISTS = {
    ("ExpPortraitLoadHead", "model"),
    ("ExpPortraitLoadProxy", "file"),
    ("ExpPortraitLoadMotion", "file"),
    ("ExpPortraitLoadArkit", "file"),
    ("ExpPortraitLoadAdapter", "file"),
    ("ExpPortraitLoadPocket", "file"),
    ("ExpPortraitDiffusers", "pipeline"),
    ("ExpPortraitDiffusers", "adapter"),
}


@pytest.fixture(scope="module")
def infos(comfyui) -> dict[str, dict]:
    """/object_info of our nodes."""
    return {name: info for name, info in comfyui.get("/object_info").items() if name.startswith("ExpPortrait")}


def sockets(info: dict) -> dict:
    """What saved workflows rely on: inputs in their order with type, default and range, and outputs."""
    inputs = {}
    for kind in ("required", "optional"):
        for name, (form, *rest) in info["input"].get(kind, {}).items():
            options = rest[0] if rest else {}
            kept = {key: options[key] for key in ("default", "min", "max", "options") if key in options}
            if isinstance(form, list):  # the old way to send a combo
                form, kept["options"] = "COMBO", form
            if (info["name"], name) in FILE_LISTS:
                kept.pop("options")
            inputs[name] = {"type": form, "optional": kind == "optional", **kept}
    outputs = [list(pair) for pair in zip(info["output_name"], info["output"], strict=True)]
    return {"display_name": info["display_name"], "inputs": inputs, "outputs": outputs}


def test_pack_is_imported(comfyui):
    assert "IMPORT FAILED" not in "\n".join(line for line in comfyui.log.splitlines() if "ExpPortrait" in line)
    assert "Traceback" not in comfyui.log.split("Import times for custom nodes")[0]


def test_sockets_are_those_of_the_snapshot(infos, tmp_path):
    found = {name: sockets(info) for name, info in sorted(infos.items())}
    fresh = tmp_path / "schema.json"
    fresh.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    expected = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    for name in found.keys() & expected.keys():  # values of widgets are saved by their order, which equal dicts may differ in
        assert list(found[name]["inputs"]) == list(expected[name]["inputs"]), name
    assert found == expected, f"saved workflows rely on these; if the change is meant and compatible, copy {fresh} to {SNAPSHOT}"


def test_every_input_and_output_has_a_tooltip(infos):
    for name, info in infos.items():
        assert info["category"] == "ExpPortrait" and info["description"], name
        for kind in ("required", "optional"):
            for field, (_, *rest) in info["input"].get(kind, {}).items():
                assert rest and rest[0].get("tooltip"), f"{name}.{field}"
        assert all(info["output_tooltips"]), name


def test_help_pages_are_served_and_name_every_socket(comfyui, infos):
    for name, info in infos.items():
        status, content = comfyui.fetch(f"/extensions/ComfyUI-ExpPortrait/docs/{name}/en.md")
        assert status == 200, name
        text = content.decode()
        assert text.startswith(f"# {info['display_name']}\n")
        fields = [field for kind in ("required", "optional") for field in info["input"].get(kind, {})]
        for field in fields + info["output_name"]:
            assert f"**{field}**" in text, f"the help page of {name} does not name {field}"


def test_workflows_are_offered_as_templates_with_thumbnails(comfyui, root):
    names = comfyui.get("/api/workflow_templates")["ComfyUI-ExpPortrait"]
    assert sorted(names) == sorted(path.stem for path in (root / "workflows").glob("*.json"))
    for name in names:
        status, content = comfyui.fetch(f"/api/workflow_templates/ComfyUI-ExpPortrait/{name}.jpg")
        assert status == 200 and content[:2] == b"\xff\xd8"
