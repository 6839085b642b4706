import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.cli import PORTRAIT, main
from expportrait.proxy.frames import Frames, VideoWriter, read_image
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmark_points import table_of
from expportrait.proxy.posing import Stage, camera_space
from expportrait.transfer.motion import HeadMotion

sys.path.insert(0, str(Path(__file__).parent / "proxy"))
from displaced_head import displace  # noqa: E402
from painted_head import make_track, paint, skin_paint  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Track and proxy of the shipped portrait, motion of a preset: made once by the commands themselves."""
    folder = tmp_path_factory.mktemp("cli")
    track, proxy, motion = (str(folder / f"{name}.safetensors") for name in ("track", "proxy", "motion"))
    assert main(["fit", str(PORTRAIT), "--out", track, "--overlay", str(folder / "overlay.mp4")]) == 0
    assert main(["build", str(PORTRAIT), "--track", track, "--out", proxy]) == 0
    assert main(["transfer", "--proxy", proxy, "--driver", "preset:speaking", "--out", motion]) == 0
    short = HeadMotion.load(motion).select(list(range(10, 40, 5)))
    short.save(folder / "short.safetensors")
    return folder


def test_fit_build_and_transfer_leave_their_files(folder):
    track = HeadTrack.load(folder / "track.safetensors")
    assert len(track) == 1 and track.valid.all() and track.landmarks.shape == track.landmarks_fit.shape == (1, 478, 2)
    eyes = (track.landmarks[:, 33] - track.landmarks[:, 263]).norm(dim=-1)
    assert ((track.landmarks - track.landmarks_fit).norm(dim=-1).mean(-1) < 0.05 * eyes).all()
    assert HeadProxy.load(folder / "proxy.safetensors", track.model_id).albedo.isfinite().all()
    assert len(HeadMotion.load(folder / "motion.safetensors", track.model_id)) == 150
    assert len(Frames.open(folder / "overlay.mp4")) == 1


def test_render_writes_one_video_per_map(folder):
    code = main(
        ["render", "--proxy", str(folder / "proxy.safetensors"), "--motion", str(folder / "short.safetensors")]
        + ["--maps", "normals,depth,mask", "--size", "96x160", "--out", str(folder / "maps")]
    )
    assert code == 0
    for name in ("normals", "depth", "mask"):
        video = Frames.open(folder / "maps" / f"{name}.mp4")
        assert (len(video), video.width, video.height) == (6, 96, 160)


def test_animate_from_a_saved_motion(folder):
    out = folder / "video.mp4"
    code = main(["animate", "--source", str(PORTRAIT), "--driver", str(folder / "short.safetensors"), "--out", str(out)])
    assert code == 0
    video = Frames.open(out)
    assert (len(video), video.width, video.height, video.fps) == (6, 512, 512, 25)


def test_export_writes_a_glb(folder):
    assert main(["export", "--proxy", str(folder / "proxy.safetensors"), "--glb", str(folder / "head.glb")]) == 0
    assert (folder / "head.glb").read_bytes()[:4] == b"glTF"


@pytest.fixture(scope="module")
def clip(model, tmp_path_factory):
    """A clip of four frames of a painted head that turns, its track, and a clip of its displaced self's normals."""
    folder = tmp_path_factory.mktemp("clip")
    track = make_track(model, 160, 160, (0.0, 0.1, 0.2, 0.3))
    landmarks = track.camera.project(table_of(model).points(camera_space(model, track.identity, track), model.faces))
    track = dataclasses.replace(track, landmarks=landmarks, landmarks_fit=landmarks)
    track.save(folder / "track.safetensors")
    shots = [dataclasses.replace(track, joints=track.joints[i : i + 1]) for i in range(4)]
    with VideoWriter(folder / "clip.mp4", 25) as writer:
        writer.write(torch.stack([paint(model, shot, skin_paint(model)) for shot in shots]).permute(0, 2, 3, 1))
    assert main(["build", str(folder / "clip.mp4"), "--track", str(folder / "track.safetensors"), "--out", str(folder / "plain")]) == 0
    displaced = displace(HeadProxy.load(folder / "plain"), model, torch.Generator().manual_seed(3))
    shot = Stage(model, track.camera).shot(camera_space(model, dataclasses.replace(displaced, detail_by_expression=None), track))
    normals, distance = shot.pixels(shot.normals, -shot.vertices[..., 2:])
    near = shot.raster.scatter(0.4 / distance).expand(-1, -1, -1, 3)
    mask = shot.raster.mask[..., None].float().expand(-1, -1, -1, 3)
    for name, maps in (("normals", shot.raster.scatter((normals + 1) / 2)), ("depth", near), ("mask", mask)):
        with VideoWriter(folder / f"{name}.mp4", 25) as writer:
            writer.write(maps)
    return folder


def test_build_refines_only_when_asked(clip, model):
    build = ["build", str(clip / "clip.mp4"), "--track", str(clip / "track.safetensors"), "--frame", "1", "--out"]
    relief = {}
    given = [f"--{name}={clip / name}.mp4" for name in ("normals", "depth", "mask")]
    for name, extra in (("alone", []), ("normals", [*given, f"--sheet={clip / 'sheet.png'}"])):
        assert main([*build, str(clip / name), "--refine", "draft", *extra]) == 0
        proxy = HeadProxy.load(clip / name, model.model_id)
        assert proxy.detail.shape[0] == 4 and proxy.detail_by_expression.shape[0] == len(model.expression_names)
        assert torch.equal(proxy.source_joints, HeadTrack.load(clip / "track.safetensors").joints[1])
        outward = model.vertex_normals(model.canonical(proxy.identity[None], proxy.neutral[None]))[0]
        relief[name] = (proxy.displacement * outward).sum(-1).abs().mean()
    assert relief["normals"] > 1e-4 and relief["normals"] > 3 * relief["alone"]
    assert read_image(clip / "sheet.png").shape[1] > 5 * 160
    plain = HeadProxy.load(clip / "plain")
    assert plain.displacement is plain.detail_basis is plain.detail is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (f"build {PORTRAIT} --track {{}}/track.safetensors --normals {PORTRAIT} --out {{}}/p", "add --refine standard"),
        (f"build {PORTRAIT} --track {{}}/track.safetensors --refine draft --normals no.png --out {{}}/p", "no.png does not exist"),
        (f"build {PORTRAIT} --track {{}}/track.safetensors --refine draft --normals {PORTRAIT} --out {{}}/p", "normal map"),
        (f"build {PORTRAIT} --track {{}}/track.safetensors --refine draft --frame 3 --out {{}}/p", "give --frame 0 to 0"),
        ("fit nowhere.mp4 --out {}/t.safetensors", "nowhere.mp4 does not exist"),
        (f"fit {__file__} --out {{}}/t.safetensors", "cannot be decoded"),
        (f"build {PORTRAIT} --track {__file__} --out {{}}/p.safetensors", "not a readable safetensors"),
        (f"build {PORTRAIT} --track {{}}/track.safetensors --frame 3 --out {{}}/p.safetensors", "give --frame 0 to 0"),
        ("transfer --proxy {}/track.safetensors --driver preset:speaking --out {}/m", "expected expportrait.head_proxy"),
        ("transfer --proxy {}/proxy.safetensors --driver preset:none --out {}/m", "choose one of expressions, speaking"),
        ("transfer --proxy {}/proxy.safetensors --driver {}/proxy.safetensors --out {}/m", "give a track, a motion or a clip"),
        ("export --proxy {}/absent.safetensors --glb {}/h.glb", "absent.safetensors does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(folder, capsys, arguments, message):
    before = sorted(p.name for p in folder.iterdir())
    assert main([a.replace("{}", str(folder)) for a in arguments.split()]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("expportrait: ")]
    assert len(lines) == 1 and message in lines[0]
    assert sorted(p.name for p in folder.iterdir()) == before


def test_frames_without_a_face_say_so(folder, capsys):
    from expportrait.proxy.frames import write_image

    write_image(folder / "grey.png", torch.full((64, 64, 3), 0.5))
    assert main(["fit", str(folder / "grey.png"), "--out", str(folder / "t.safetensors")]) == 1
    assert "face" in capsys.readouterr().err
    assert not (folder / "t.safetensors").exists()


def test_unknown_maps_and_sizes_are_usage_errors(capsys):
    for extra in (["--maps", "normals,colours"], ["--size", "0x10"]):
        with pytest.raises(SystemExit):
            main(["render", "--proxy", "p", "--motion", "m", "--out", "o", *extra])
    assert "there is no map 'colours'" in capsys.readouterr().err
