"""The example workflows in the real page and server."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import av
import pytest

from expportrait.dit.pocket.weights import SHIPPED

sys.path.insert(0, str(Path(__file__).parent))
import graphs  # noqa: E402
from tiny_adapter import write_adapter  # noqa: E402
from tiny_pocket import write_pocket  # noqa: E402
from tiny_wan import write_text, write_vae, write_wan  # noqa: E402

LOADERS = {
    "UNETLoader": ("unet_name", "diffusion_models"),
    "CLIPLoader": ("clip_name", "text_encoders"),
    "VAELoader": ("vae_name", "vae"),
    "CLIPVisionLoader": ("clip_name", "clip_vision"),
    "ExpPortraitLoadAdapter": ("file", "model_patches"),
}
TO_THE_END = ["portrait_and_clip_to_preview", "two_performers_one_portrait"]
POCKET = "portrait_with_pocket_model"
STILL = ["edit_an_expression", "refine_with_outside_normals"]  # of a portrait alone
NEED_WEIGHTS = ["wan_vace_from_maps", "wan_fun_control_from_depth", "wan_animate_from_proxy", "wan_i2v_with_portrait_adapter"]
SIZE, FRAMES = (64, 96), 5  # of the tiny models' clips


def load(page, root, name: str) -> dict:
    """Loads a workflow in the page; returns it in API form."""
    workflow = json.loads((root / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    types = page.evaluate("window.app.graph._nodes.map(node => node.type)")
    assert sorted(types) == sorted(node["type"] for node in workflow["nodes"])
    unknown = page.evaluate("window.app.graph._nodes.map(n => n.type).filter(t => !(t in LiteGraph.registered_node_types))")
    assert set(unknown) <= {"MarkdownNote", "Note"}
    assert page.locator(".comfy-missing-nodes").count() == 0
    links = page.evaluate("window.app.graph.serialize().links.length")
    assert links == len(workflow["links"])
    return page.evaluate("window.app.graphToPrompt()")["output"]


def put_media(graph: dict, media) -> None:
    for node in graph.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = media.portrait
        elif node["class_type"] == "LoadVideo":
            node["inputs"]["file"] = media.clip


@pytest.mark.parametrize("name", [*TO_THE_END, *STILL, POCKET, *NEED_WEIGHTS])
def test_page_loads_the_workflow(page, root, name):
    graph = load(page, root, name)
    assert page.errors == []
    unlinked = [node["class_type"] for node in graph.values() if None in node["inputs"].values()]
    assert unlinked == []


@pytest.mark.parametrize("name", TO_THE_END)
def test_workflow_runs_to_its_end(page, comfyui, root, media, name):
    graph = load(page, root, name)
    put_media(graph, media)
    videos = comfyui.saved(comfyui.run(graph, seconds=600))
    assert len(videos) == sum(node["class_type"] == "SaveVideo" for node in graph.values()) > 0
    for path in videos:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
            assert abs(float(stream.average_rate) - media.fps) < 0.01
        assert len(frames) == media.frames
        assert frames[0].shape == (media.portrait_size[1], media.portrait_size[0])
        assert frames[0].std() > 5 and any(abs(frame.astype(int) - frames[0]).max() > 20 for frame in frames)


@pytest.mark.parametrize("name", STILL)
def test_workflow_of_a_portrait_runs_to_its_end(page, comfyui, root, media, name):
    graph = load(page, root, name)
    put_media(graph, media)
    for node in graph.values():
        if node["class_type"] == "ExpPortraitRenderVideo":
            node["inputs"] |= {"width": SIZE[0], "height": SIZE[1]}
        elif node["class_type"] == "ExpPortraitEditExpression":
            node["inputs"] |= {"seconds": 0.4, "keyframes": node["inputs"]["keyframes"].replace("1s", "0.2s")}
    outputs = comfyui.run(graph, seconds=900)
    (path,) = (path for path in comfyui.saved(outputs) if path.suffix == ".mp4")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(container.streams.video[0])]
    assert len(frames) > 5 and frames[0].shape == SIZE[::-1] and frames[0].std() > 5
    assert max(abs(frame - frames[0]).max() for frame in frames) > 20


@pytest.mark.parametrize("shipped", (False, True))
def test_pocket_workflow_runs_to_its_end(page, comfyui, root, media, shipped):
    if shipped and not SHIPPED.is_file():
        pytest.skip("the pocket model's weights are not in the pack")
    graph = load(page, root, POCKET)
    put_media(graph, media)
    for node in graph.values():
        inputs = node["inputs"]
        if node["class_type"] == "ExpPortraitTrimMotion":
            inputs |= {"start": 20, "end": 19 + FRAMES}
        elif node["class_type"] == "ExpPortraitPocketConditioning":
            inputs["side"] = SIZE[0]
        elif node["class_type"] == "ExpPortraitLoadPocket":
            assert inputs["file"] == "shipped"
            inputs["file"] = "shipped" if shipped else write_pocket(comfyui.base)
    (path,) = (path for path in comfyui.saved(comfyui.run(graph, seconds=600)) if path.suffix == ".mp4")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(container.streams.video[0])]
    assert len(frames) == FRAMES and frames[0].std() > 5 and abs(frames[0] - frames[-1]).max() > 20
    assert frames[0].shape == (media.portrait_size[1], media.portrait_size[0])


@pytest.mark.parametrize("name", NEED_WEIGHTS)
def test_workflow_with_a_video_model_is_accepted(page, comfyui, root, media, name):
    graph = load(page, root, name)
    put_media(graph, media)
    for node in graph.values():
        if node["class_type"] in LOADERS:
            field, folder = LOADERS[node["class_type"]]
            path = comfyui.base / "models" / folder / node["inputs"][field]
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                path.touch()
    prompt = comfyui.queue(graph)
    comfyui.fetch("/queue", {"delete": [prompt]})
    comfyui.fetch("/interrupt", {"prompt_id": prompt})
    end = time.monotonic() + 60
    while any(comfyui.get("/queue").values()):
        assert time.monotonic() < end, "the interrupted prompt is still in the queue"
        time.sleep(0.1)
    # A prompt that was deleted before it began leaves no history.
    entry = comfyui.get(f"/history/{prompt}").get(prompt)
    assert entry is None or "execution_error" not in [kind for kind, _ in entry["status"]["messages"]]


def make_tiny(graph: dict, comfyui, kind: str) -> None:
    """Gives a workflow tiny weights of a `kind` in tiny_wan, a small clip and few steps, and text without its encoder."""
    write_text(comfyui.base / "output/tiny_text")
    texts = {key for key, value in graph.items() if value["class_type"] == "CLIPTextEncode"}
    for key, value in list(graph.items()):
        inputs = value["inputs"]
        for name, link in inputs.items():
            if isinstance(link, list) and link[0] in texts:
                inputs[name] = [link[0], 1]
        if key in texts:
            graph[key] = graphs.node("LoadTrainingDataset", folder_name="tiny_text")
        elif value["class_type"] == "CLIPLoader":
            del graph[key]
        elif value["class_type"] == "UNETLoader":
            path = comfyui.base / "models/diffusion_models" / inputs["unet_name"]
            write_wan(path, kind, layers=5 if kind == "animate" else 2, seed=len(path.name))
        elif value["class_type"] == "VAELoader":
            write_vae(comfyui.base / "models/vae" / inputs["vae_name"])
        elif value["class_type"] == "ExpPortraitLoadAdapter":
            write_adapter(comfyui.base / "models/model_patches" / inputs["file"])
        elif value["class_type"] in ("CLIPVisionLoader", "CLIPVisionEncode"):
            del graph[key]  # the image encoder's size is fixed in the core; Wan does without
        elif "clip_vision_output" in inputs:
            del inputs["clip_vision_output"]
        elif value["class_type"] == "ExpPortraitPrepareClip":
            inputs |= {"width": SIZE[0], "height": SIZE[1], "max_frames": FRAMES}
        elif "steps" in inputs:
            inputs["steps"] = 2
            inputs |= {name: 1 for name, at in (("start_at_step", 10), ("end_at_step", 10)) if inputs.get(name) == at}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("wan_vace_from_maps", "vace"),
        ("wan_fun_control_from_depth", "fun_control_a14b"),
        ("wan_animate_from_proxy", "animate"),
        ("wan_i2v_with_portrait_adapter", "i2v_a14b"),
    ],
)
def test_workflow_runs_with_tiny_weights(page, comfyui, root, media, name, kind):
    graph = load(page, root, name)
    put_media(graph, media)
    make_tiny(graph, comfyui, kind)
    outputs = comfyui.run(graph, seconds=600)
    videos = [path for path in comfyui.saved(outputs) if path.suffix == ".mp4"]
    with av.open(str(videos[0])) as container:
        frames = [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(container.streams.video[0])]
    assert len(videos) == 1 and len(frames) == FRAMES
    assert abs(frames[0].shape[0] - media.portrait_size[1]) <= 1 and abs(frames[0].shape[1] - media.portrait_size[0]) <= 1
    assert abs(frames[0] - frames[-1]).max() > 20  # noise of an untrained model, in the head's box
