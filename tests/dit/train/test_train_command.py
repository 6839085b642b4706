import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install expportrait[diffusers]")
pytest.importorskip("peft", reason="peft is not installed: pip install expportrait[diffusers]")

from expportrait.cli import PORTRAIT, main  # noqa: E402
from expportrait.dit.adapter.adapter_file import load_adapter  # noqa: E402
from expportrait.dit.train.shards import Shard, find_shards  # noqa: E402
from expportrait.proxy.build import build_proxy  # noqa: E402
from expportrait.proxy.fit import fit_frames  # noqa: E402
from expportrait.proxy.frames import Frames, VideoWriter  # noqa: E402
from expportrait.proxy.landmarks import load_landmarker  # noqa: E402
from expportrait.proxy.preview import render_preview  # noqa: E402
from expportrait.transfer.neutral import rest_of  # noqa: E402
from expportrait.transfer.performance import Driver  # noqa: E402
from expportrait.transfer.presets import load_preset  # noqa: E402
from expportrait.transfer.transfer import transfer_motion  # noqa: E402

from ..small_wan import LAYERS, WIDTH, transformer_of, vae_of  # noqa: E402


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
        return main(["train-dit", "train", *folder, "--steps", str(steps), "--rank", "2", "--float32", "--save-every", "1"])

    assert train(2) == 0 and train(4) == 0
    lines = (tmp_path / "run" / "losses.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["1", "2", "3", "4"]
    out = str(tmp_path / "adapter.safetensors")
    assert main(["train-dit", "export", "--run", str(tmp_path / "run"), "--out", out]) == 0
    file = load_adapter(out)
    assert file.config == config and file.lora and file.build().control.project.weight.any()


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
