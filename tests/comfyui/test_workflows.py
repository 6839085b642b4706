"""The example workflows in the real page and server."""

from __future__ import annotations

import json
import time

import av
import pytest

LOADERS = {"UNETLoader": ("unet_name", "diffusion_models"), "CLIPLoader": ("clip_name", "text_encoders"), "VAELoader": ("vae_name", "vae")}


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


@pytest.mark.parametrize("name", ["portrait_and_clip_to_preview", "two_performers_one_portrait", "wan_vace_from_maps"])
def test_page_loads_the_workflow(page, root, name):
    graph = load(page, root, name)
    assert page.errors == []
    unlinked = [node["class_type"] for node in graph.values() if None in node["inputs"].values()]
    assert unlinked == []


@pytest.mark.parametrize("name", ["portrait_and_clip_to_preview", "two_performers_one_portrait"])
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


def test_workflow_with_a_video_model_is_accepted(page, comfyui, root, media):
    graph = load(page, root, "wan_vace_from_maps")
    put_media(graph, media)
    for node in graph.values():
        if node["class_type"] in LOADERS:
            field, folder = LOADERS[node["class_type"]]
            path = comfyui.base / "models" / folder / node["inputs"][field]
            path.parent.mkdir(exist_ok=True)
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
