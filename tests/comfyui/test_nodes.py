"""Nodes called as a user's graph calls them: files, errors, cancel."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from expportrait.proxy.head_proxy import HeadProxy

sys.path.insert(0, str(Path(__file__).parent))
from graphs import node, one_sentence, portrait  # noqa: E402


@pytest.fixture
def portrait_graph(media) -> dict:
    """A photo, its fit, its proxy and the first preset on it."""
    return portrait(media) | {
        "transfer": node("ExpPortraitTransfer", head_proxy=["build", 0], preset="speaking", pose_from="source"),
    }


def test_fit_reads_a_video_as_its_frames(comfyui, media):
    graph = {
        "video": node("LoadVideo", file=media.clip),
        "fit": node("ExpPortraitFit", images=["video", 0]),
        "overlay": node("ExpPortraitFitOverlay", images=["video", 0], head_track=["fit", 0]),
        "save": node("SaveImage", images=["overlay", 0], filename_prefix="overlay"),
    }
    pictures = comfyui.saved(comfyui.run(graph))
    assert len(pictures) == media.frames
    assert Image.open(pictures[0]).size == media.size


def test_fit_reads_a_video_that_is_no_file(comfyui, media):
    graph = {
        "photo": node("LoadImage", image=media.portrait),
        "twice": node("RepeatImageBatch", image=["photo", 0], amount=2),
        "video": node("CreateVideo", images=["twice", 0], fps=12.0),
        "fit": node("ExpPortraitFit", images=["video", 0]),
        "overlay": node("ExpPortraitFitOverlay", images=["twice", 0], head_track=["fit", 0]),
        "save": node("SaveImage", images=["overlay", 0], filename_prefix="overlay"),
    }
    assert len(comfyui.saved(comfyui.run(graph))) == 2


def test_proxy_and_motion_survive_saving(comfyui, portrait_graph):
    saving = portrait_graph | {
        "proxy": node("ExpPortraitSaveProxy", head_proxy=["build", 0], filename_prefix="heads/proxy"),
        "motion": node("ExpPortraitSaveMotion", head_motion=["transfer", 0], filename_prefix="heads/motion"),
    }
    outputs = comfyui.run(saving)
    for name in ("fit", "build", "transfer"):  # each shows on itself what it did
        (picture,) = outputs[name]["images"]
        assert picture["type"] == "temp" and Image.open(comfyui.base / "temp" / picture["filename"]).height > 100
    proxy, motion = (f"{outputs[name]['text'][0]} [output]" for name in ("proxy", "motion"))
    assert proxy == "heads/proxy_00001_.safetensors [output]"
    listed = comfyui.get("/object_info/ExpPortraitLoadProxy")["ExpPortraitLoadProxy"]["input"]["required"]["file"]
    assert proxy in json.dumps(listed)
    render = {
        "proxy": node("ExpPortraitLoadProxy", file=proxy),
        "motion": node("ExpPortraitLoadMotion", file=motion),
        "again": node("ExpPortraitTransfer", head_proxy=["proxy", 0], driver=["motion", 0], expression_strength=0.5),
        "map": node("ExpPortraitRender", head_proxy=["proxy", 0], head_motion=["again", 0], map="shaded", width=96, height=64),
        "first": node("ImageFromBatch", image=["map", 0], batch_index=0, length=2),
        "save": node("SaveImage", images=["first", 0], filename_prefix="map"),
    }
    pictures = comfyui.saved(comfyui.run(render))
    assert len(pictures) == 2
    picture = Image.open(pictures[0])
    assert picture.size == (96, 64) and len(picture.getcolors(96 * 64)) > 50

    swapped = render | {"proxy": node("ExpPortraitLoadProxy", file=motion)}
    one_sentence(comfyui.failure(swapped), "head_motion", "head_proxy")


@pytest.mark.parametrize("name", ["../secret.safetensors [output]", "/etc/passwd", "missing.safetensors"])
def test_loaders_stay_in_their_folders(comfyui, name):
    graph = {"a": node("ExpPortraitLoadProxy", file=name), "b": node("ExpPortraitSaveProxy", head_proxy=["a", 0], filename_prefix="x")}
    status, content = comfyui.fetch("/prompt", {"prompt": graph})
    assert status == 400
    assert "a" in json.loads(content)["node_errors"]


def test_glb_is_written_and_named_for_the_viewer(comfyui, portrait_graph):
    graph = portrait_graph | {"glb": node("ExpPortraitExportGLB", head_proxy=["build", 0], head_motion=["transfer", 0])}
    name = comfyui.run(graph)["glb"]["result"][0]
    content = (comfyui.base / "output" / name).read_bytes()
    assert content[:4] == b"glTF" and int.from_bytes(content[8:12], "little") == len(content)


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (4000, 3000)])
def test_a_picture_without_a_face_is_one_sentence(comfyui, size):
    graph = {
        "grey": node("EmptyImage", width=size[0], height=size[1], batch_size=1, color=0x808080),
        "fit": node("ExpPortraitFit", images=["grey", 0]),
        "overlay": node("ExpPortraitFitOverlay", images=["grey", 0], head_track=["fit", 0]),
        "show": node("PreviewImage", images=["overlay", 0]),
    }
    error = comfyui.failure(graph)
    assert error["node_id"] == "fit"
    one_sentence(error, "face")


def test_a_cat_is_one_sentence(comfyui, shared_data):
    (comfyui.base / "input/cat.jpg").write_bytes((shared_data / "portraits/s39.jpg").read_bytes())
    graph = {
        "cat": node("LoadImage", image="cat.jpg"),
        "fit": node("ExpPortraitFit", images=["cat", 0]),
        "overlay": node("ExpPortraitFitOverlay", images=["cat", 0], head_track=["fit", 0]),
        "show": node("PreviewImage", images=["overlay", 0]),
    }
    one_sentence(comfyui.failure(graph), "face")


def test_wrong_pictures_for_a_fit_are_one_sentence(comfyui, portrait_graph):
    graph = portrait_graph | {
        "twice": node("RepeatImageBatch", image=["photo", 0], amount=2),
        "build": node("ExpPortraitBuildProxy", images=["twice", 0], head_track=["fit", 0]),
        "save": node("ExpPortraitSaveProxy", head_proxy=["build", 0], filename_prefix="never"),
    }
    one_sentence(comfyui.failure(graph), "2 pictures", "1 frame")
    assert not list((comfyui.base / "output").glob("never*"))


def test_a_broken_head_model_is_one_sentence(comfyui, portrait_graph):
    folder = comfyui.base / "models/smplx"
    folder.mkdir(exist_ok=True)
    (folder / "SMPLX_BROKEN.npz").write_bytes(b"PK\x03\x04 no more than this")
    graph = portrait_graph | {
        "model": node("ExpPortraitLoadHead", model="SMPLX_BROKEN.npz"),
        "fit": node("ExpPortraitFit", images=["photo", 0], head_model=["model", 0]),
        "save": node("ExpPortraitSaveProxy", head_proxy=["build", 0], filename_prefix="never"),
    }
    one_sentence(comfyui.failure(graph), "SMPLX_BROKEN.npz")


def test_head_models_are_listed_without_their_landmark_tables(comfyui):
    folder = comfyui.base / "models/smplx"
    folder.mkdir(exist_ok=True)
    for name in ("SMPLX_MINE.npz", "SMPLX_MINE.npz.landmarks.npz", "SMPLX_MINE.pkl"):
        (folder / name).touch()
    listed = json.dumps(comfyui.get("/object_info/ExpPortraitLoadHead"))
    assert '"SMPLX_MINE.npz"' in listed
    assert "landmarks.npz" not in listed and "MINE.pkl" not in listed


def test_cancel_stops_a_fit_soon(comfyui, media):
    graph = {
        "video": node("LoadVideo", file=media.clip),
        "parts": node("GetVideoComponents", video=["video", 0]),
        "long": node("RepeatImageBatch", image=["parts", 0], amount=50),
        "fit": node("ExpPortraitFit", images=["long", 0]),
        "build": node("ExpPortraitBuildProxy", images=["long", 0], head_track=["fit", 0]),
        "save": node("ExpPortraitSaveProxy", head_proxy=["build", 0], filename_prefix="cancelled"),
    }
    prompt = comfyui.queue(graph)
    time.sleep(4)
    assert prompt not in comfyui.get(f"/history/{prompt}"), "through before it could be cancelled"
    asked = time.monotonic()
    comfyui.fetch("/interrupt", {"prompt_id": prompt})
    status = comfyui.wait(prompt, 20)["status"]
    assert time.monotonic() - asked < 10  # of the minutes that 1,200 frames take; a batch of frames is finished first
    interrupted = [data for kind, data in status["messages"] if kind == "execution_interrupted"]
    assert interrupted and interrupted[0]["node_id"] == "fit"


def test_refine_gives_a_proxy_its_picture_and_a_sheet(comfyui, media):
    graph = {
        "video": node("LoadVideo", file=media.clip),
        "parts": node("GetVideoComponents", video=["video", 0]),
        "few": node("ImageFromBatch", image=["parts", 0], batch_index=0, length=4),
        "fit": node("ExpPortraitFit", images=["few", 0]),
        "refine": node("ExpPortraitRefine", images=["few", 0], head_track=["fit", 0], quality="draft", detail=1.0, frame=2),
        "proxy": node("ExpPortraitSaveProxy", head_proxy=["refine", 0], filename_prefix="heads/refined"),
        "source": node("SaveImage", images=["refine", 1], filename_prefix="refined_source"),
        "sheet": node("SaveImage", images=["refine", 2], filename_prefix="refined_sheet"),
    }
    outputs = comfyui.run(graph)
    proxy = HeadProxy.load(comfyui.base / "output" / outputs["proxy"]["text"][0])
    assert proxy.detail.shape[0] == 4 and 0 < proxy.displacement.norm(dim=-1).max() < 0.02
    (source,), (sheet,) = (comfyui.saved({name: outputs[name]}) for name in ("source", "sheet"))
    assert Image.open(source).size == media.size
    assert len(Image.open(sheet).convert("RGB").getcolors(1 << 22)) > 1000

    wrong = graph | {"refine": node("ExpPortraitRefine", **(graph["refine"]["inputs"] | {"normals": ["few", 0]}))}
    one_sentence(comfyui.failure(wrong), "normal map")
    missing = graph | {"refine": node("ExpPortraitRefine", **(graph["refine"]["inputs"] | {"frame": 9}))}
    one_sentence(comfyui.failure(missing), "frame 9", "4 frames")
