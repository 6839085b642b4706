"""What can be said about the pack without ComfyUI."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def node_ids(root) -> set[str]:
    """The node ids that stand in the source of nodes/."""
    found = []
    for path in (root / "nodes").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.keyword) and call.arg == "node_id":
                found.append(ast.literal_eval(call.value))
    assert len(found) == len(set(found)) > 0
    return set(found)


def test_library_imports_without_comfyui(root, shipped_files):
    modules = [
        ".".join(["expportrait", *path.with_suffix("").parts]).removesuffix(".__init__")
        for path in shipped_files
        if path.suffix == ".py" and path.parts[0] in ("proxy", "transfer", "dit", "cli.py")
    ]
    blocked = ("comfy", "comfy_api", "folder_paths")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\nimport expportrait, {', '.join(modules)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root.parent, check=False)
    assert done.returncode == 0, done.stderr


RASTERISE = """
import importlib.util, sys
name = sys.argv[1]  # ComfyUI names a pack's module by its path
spec = importlib.util.spec_from_file_location(name, name + "/__init__.py", submodule_search_locations=[name])
sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[name])
Rasterizer = importlib.import_module(name + ".proxy.raster").Rasterizer
import torch
faces = torch.tensor([[0, 1, 2]])
clip = torch.tensor([[[-1.0, -1, 0, 1], [3, -1, 0, 1], [-1, 3, 0, 1]]])
rasterizer = Rasterizer(faces, 3, "warp")
raster = rasterizer.rasterize(clip, (4, 4))
assert (raster.ids == 1).all() and torch.allclose(rasterizer.interpolate(torch.ones(1, 3, 5), raster, clip), torch.ones(1, 4, 4, 5))
"""


def test_rasteriser_works_under_the_name_that_comfyui_gives(root, tmp_path):
    link = tmp_path / "ComfyUI-ExpPortrait"
    link.symlink_to(root, target_is_directory=True)
    done = subprocess.run([sys.executable, "-c", RASTERISE, str(link)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_node_ids_are_prefixed(node_ids):
    assert all(name.startswith("ExpPortrait") for name in node_ids)


def test_every_node_has_its_help_page_and_no_other(root, node_ids):
    assert {path.parent.name for path in (root / "web/docs").glob("*/en.md")} == node_ids


def test_workflows_have_thumbnails_and_known_nodes(root, node_ids):
    files = sorted((root / "workflows").glob("*.json"))
    assert [path.stem for path in files] == [
        "edit_an_expression",
        "portrait_and_clip_to_preview",
        "portrait_with_pocket_model",
        "refine_with_outside_normals",
        "two_performers_one_portrait",
        "wan_animate_from_proxy",
        "wan_fun_control_from_depth",
        "wan_i2v_with_portrait_adapter",
        "wan_vace_from_maps",
    ]
    for path in files:
        with Image.open(path.with_suffix(".jpg")) as thumbnail:
            assert thumbnail.format == "JPEG" and min(thumbnail.size) >= 256
        nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
        ours = {node["type"] for node in nodes if node["type"].startswith("ExpPortrait")}
        assert ours and ours <= node_ids
        packs = {node["properties"].get("cnr_id", "comfy-core") for node in nodes if node["type"] not in ours}
        assert packs == {"comfy-core"}


def test_project_file_has_what_the_registry_asks_for(root):
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    names = {name.split(";")[0].strip().lower() for name in project["project"]["dependencies"]}
    assert not {name for name in names if name.startswith(("torch", "insightface", "mediapipe", "numba", "nvdiffrast"))}
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.") for name in names), "no pins"
    assert "comfyui" not in project["project"]["name"].lower()
    assert {"PublisherId", "DisplayName"} <= project["tool"]["comfy"].keys()


def test_locales_name_the_same_things(root, node_ids):
    def shape(value):
        return {key: shape(entry) for key, entry in value.items()} if isinstance(value, dict) else None

    english, chinese = (json.loads((root / f"locales/{name}/nodeDefs.json").read_text(encoding="utf-8")) for name in ("en", "zh"))
    assert english.keys() == node_ids
    assert shape(english) == shape(chinese)
