import dataclasses

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install expportrait[diffusers]")
pytest.importorskip("peft", reason="peft is not installed: pip install expportrait[diffusers]")

from expportrait.cli import PORTRAIT, main  # noqa: E402
from expportrait.dit.adapter.adapter_file import load_adapter  # noqa: E402
from expportrait.dit.adapter.config import AdapterConfig  # noqa: E402
from expportrait.dit.train.another_crop import CACHED  # noqa: E402
from expportrait.dit.train.cache import PROXY, TRACK, CacheSettings, cache_clip, hide, performed, read_head  # noqa: E402
from expportrait.dit.train.shards import Shard, find_shards  # noqa: E402
from expportrait.proxy.build import build_proxy, source_proxy  # noqa: E402
from expportrait.proxy.fit import fit_frames  # noqa: E402
from expportrait.proxy.frames import Frames, VideoWriter, read_image  # noqa: E402
from expportrait.proxy.landmarks import load_landmarker  # noqa: E402
from expportrait.proxy.preview import render_preview  # noqa: E402
from expportrait.transfer.neutral import rest_of  # noqa: E402
from expportrait.transfer.performance import Driver  # noqa: E402
from expportrait.transfer.presets import load_preset  # noqa: E402
from expportrait.transfer.transfer import transfer_motion  # noqa: E402

from ..small_wan import LAYERS, WIDTH, transformer_of, vae_of  # noqa: E402
from .test_loop import shard_of  # noqa: E402


@pytest.fixture(scope="module")
def clips(model, tmp_path_factory):
    """A folder with one short clip of the shipped portrait in motion."""
    folder = tmp_path_factory.mktemp("clips")
    frames = Frames.open(PORTRAIT)
    track = fit_frames(frames, model, load_landmarker("cpu"))
    source, (motion, rest) = frames.frame(0), load_preset("speaking", model)
    proxy = build_proxy(source, track, model, 0, rest_of(track, model).expression)
    acted = transfer_motion(proxy, Driver(motion, rest), model).select(list(range(0, 40, 4)))
    with VideoWriter(folder / "one.mp4", 25.0) as writer:
        for chunk in render_preview(source, proxy, acted, model, size=(256, 256)):
            writer.write(chunk)
    return folder


def test_from_clips_to_an_adapter(clips, tmp_path):
    vae_of().save_pretrained(tmp_path / "vae")
    transformer_of().save_pretrained(tmp_path / "transformer")
    base = ["--width", str(WIDTH), "--layers", str(LAYERS), "--inputs", "normals", "rays"]
    cache = ["train-dit", "cache", "--clips", str(clips), "--vae", str(tmp_path / "vae"), "--out", str(tmp_path / "shards"), *base]
    cache += ["--size", "64", "--frames", "9", "--variants", "2"]
    assert main(cache) == 0
    paths, config = find_shards(tmp_path / "shards")
    shard, _ = Shard.load(paths[0])
    assert shard.latents.shape == (16, 3, 8, 8) and shard.references.shape == (2, 20, 3, 8, 8)
    assert shard.control.shape == (6, 9, 64, 64) and shard.geometry.shape == (2, 3, 64, 64)
    assert shard.numbers.shape == (9, config.explicit_size) and shard.latents.isfinite().all()
    assert shard.weight.min() >= 1 and shard.weight.max() <= 4 and shard.weight.max() > 1.5
    assert (shard.references[:, :4, 0] == 1).all() and (shard.references[:, :4, 1:] == 0).all()
    stamp = paths[0].stat().st_mtime_ns
    assert main(cache) == 0 and paths[0].stat().st_mtime_ns == stamp

    def train(steps):
        folder = ["--shards", str(tmp_path / "shards"), "--transformer", str(tmp_path / "transformer"), "--run", str(tmp_path / "run")]
        looking = ["--look-every", "3", "--held-out", str(tmp_path / "shards")]
        return main(["train-dit", "train", *folder, "--steps", str(steps), "--rank", "2", "--float32", "--save-every", "1", *looking])

    assert train(2) == 0 and train(4) == 0
    assert sorted(path.name for path in (tmp_path / "run").glob("*.png")) == [f"look_{k:06}.png" for k in (2, 3, 4)]
    assert read_image(tmp_path / "run" / "look_000003.png").shape == (3 * 64, 4 * 64, 3)
    lines = (tmp_path / "run" / "losses.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["1", "2", "3", "4"]
    out = str(tmp_path / "adapter.safetensors")
    assert main(["train-dit", "export", "--run", str(tmp_path / "run"), "--out", out]) == 0
    file = load_adapter(out)
    assert file.config == config and file.lora and file.build().control.project.weight.any()


def test_a_known_head_shows_its_displacement(clips, model, tmp_path):
    track = fit_frames(Frames.open(clips / "one.mp4"), model, load_landmarker("cpu"))
    plain = source_proxy(track, model)
    lump = 0.006 * torch.sin(300 * model.vertex_normals(model.forward(track.identity[None], track.expression[:1], track.joints[:1])))[0]
    config = AdapterConfig(width=WIDTH, layers=LAYERS, code="face")
    landmarker, settings = load_landmarker("cpu"), CacheSettings(64, 5, 2, seed=3)

    def shard_of(proxy):
        return next(cache_clip(str(clips / "one.mp4"), model, landmarker, vae_of(), config, settings, (track, proxy)))

    bare, lumpy = shard_of(plain), shard_of(dataclasses.replace(plain, displacement=lump))
    assert torch.equal(bare.latents, lumpy.latents) and torch.equal(bare.faces, lumpy.faces)
    assert bare.faces.shape == (5, 3, CACHED, CACHED)
    for name in ("control", "geometry"):
        assert (getattr(bare, name).float() - getattr(lumpy, name).float()).abs().mean() > 2
    fitted = next(cache_clip(str(clips / "one.mp4"), model, landmarker, vae_of(), config, settings))
    assert (fitted.control.float() - bare.control.float()).abs().mean() < 0.1

    (tmp_path / "heads").mkdir()
    track.save(tmp_path / "heads" / ("one" + TRACK))
    assert read_head(tmp_path / "heads", "two", model) is None
    with pytest.raises(ValueError, match="one.proxy.safetensors is missing"):
        read_head(tmp_path / "heads", "one", model)
    plain.save(tmp_path / "heads" / ("one" + PROXY))
    assert len(read_head(tmp_path / "heads", "one", model)[0]) == len(track)
    with pytest.raises(ValueError, match="but its track has 1"):
        next(cache_clip(str(clips / "one.mp4"), model, landmarker, vae_of(), config, settings, (track.at(torch.tensor([0])), plain)))


def test_a_dynamic_head_brings_its_detail(clips, model):
    track = fit_frames(Frames.open(clips / "one.mp4"), model, load_landmarker("cpu"))
    proxy = source_proxy(track, model)
    assert performed(track, proxy).detail is None
    detailed = dataclasses.replace(proxy, detail_basis=torch.zeros(2, model.vertex_count, 3), detail=torch.ones(len(track), 2))
    motion = performed(track, detailed)
    assert torch.equal(motion.detail, detailed.detail) and motion.detail_id == detailed.detail_id


def test_hidden_features_do_not_tell_the_expression(clips, model):
    """The hidden boxes are where they are with the mouth shut, however far it is open, and the open mouth lies inside them."""
    track = fit_frames(Frames.open(clips / "one.mp4"), model, load_landmarker("cpu"))
    config = AdapterConfig(width=WIDTH, layers=LAYERS, inputs=("normals", "lines"), code="none")
    shown = []
    for opened in (0.0, 0.8):
        expression = torch.zeros_like(track.expression)
        expression[:, model.expression_index("jawOpen")] = opened
        head = dataclasses.replace(track, expression=expression), source_proxy(track, model)
        given = (str(clips / "one.mp4"), model, load_landmarker("cpu"), vae_of(), config)
        shown.append([next(cache_clip(*given, CacheSettings(128, 5, 1, mask_features=hidden), head)).control for hidden in (False, True)])
    (shut, shut_hidden), (open_, open_hidden) = shown
    box = (shut_hidden[3:] == -127).all(0) & (shut_hidden[:3] == 0).all(0) & (shut[:3] != 0).any(0)
    assert box.any(1).any(1).all() and (open_hidden[:, box] == shut_hidden[:, box]).all()
    drawn, left = ((open_[3:].float() - shut[3:].float()).abs().sum(), (open_hidden[3:].float() - shut_hidden[3:].float()).abs().sum())
    assert left < 0.5 * drawn  # what is left is the chin, which belongs to no feature


def test_hiding_leaves_the_pose(generator):
    config = AdapterConfig(width=WIDTH, layers=LAYERS, inputs=("normals", "rays", "depth"), code="none")
    control, boxes = torch.rand(7, 2, 4, 4, generator=generator), torch.zeros(2, 4, 4)
    boxes[:, 1:3] = 1
    hidden = hide(control, boxes, config)
    assert torch.equal(hidden[:, :, ::3], control[:, :, ::3]) and torch.equal(hidden[3:6], control[3:6])
    assert (hidden[:3, :, 1:3] == 0).all() and (hidden[6, :, 1:3] == -1).all()


def test_bad_input_is_one_sentence(clips, tmp_path, capsys):
    vae_of().save_pretrained(tmp_path / "vae")
    cache = ["train-dit", "cache", "--vae", str(tmp_path / "vae"), "--out", str(tmp_path / "shards")]
    assert main([*cache, "--clips", str(tmp_path)]) == 1 and "no videos" in capsys.readouterr().err
    assert main([*cache, "--clips", str(clips)]) == 1 and "give --base" in capsys.readouterr().err
    base = ["--width", "24", "--layers", "4", "--size", "64"]
    assert main([*cache, "--clips", str(clips), *base, "--frames", "401"]) == 1
    assert "but a shard takes 401" in capsys.readouterr().err
    assert main([*cache, "--clips", str(clips), *base, "--frames", "8"]) == 1
    assert "4n + 1" in capsys.readouterr().err


def test_looking_needs_a_vae_and_shards_of_the_same_adapter(tmp_path, generator, capsys):
    config = AdapterConfig(width=WIDTH, layers=LAYERS, explicit_size=5, control_width=8, reference_width=8)
    shard_of(generator, config).save(tmp_path / "shards" / "a.safetensors", config)
    other = dataclasses.replace(config, control_width=16)
    shard_of(generator, other).save(tmp_path / "others" / "a.safetensors", other)
    transformer_of().save_pretrained(tmp_path / "base" / "transformer")
    given = ["--shards", str(tmp_path / "shards"), "--transformer", str(tmp_path / "base" / "transformer"), "--run", str(tmp_path / "run")]
    train = ["train-dit", "train", *given, "--steps", "1", "--rank", "0", "--float32"]
    assert main([*train, "--look-every", "1"]) == 1 and "there is no VAE in" in capsys.readouterr().err
    assert main(train) == 0 and not list((tmp_path / "run").glob("*.png"))
    vae_of().save_pretrained(tmp_path / "base" / "vae")
    assert main([*train, "--steps", "2", "--held-out", str(tmp_path / "others")]) == 1
    assert "made for another adapter" in capsys.readouterr().err
    assert main([*train, "--steps", "2"]) == 0 and [path.name for path in (tmp_path / "run").glob("*.png")] == ["look_000002.png"]
