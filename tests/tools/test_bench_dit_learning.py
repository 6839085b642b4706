"""What the learning bar stands on: clips with known heads, a VAE that is linear, measures whose answers are known."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install expportrait[diffusers]")

from expportrait.dit.train.cache import decode, encode, performed, read_head
from expportrait.proxy.frames import Frames, VideoWriter

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tools")]

from bench_dit_base import LATENT, make_vae  # noqa: E402
from bench_dit_clips import FRAMES, SIDE, make_clips  # noqa: E402
from bench_dit_learning import WRONG, _bars  # noqa: E402
from bench_dit_normals import NormalReader, apart, normals_of  # noqa: E402


@pytest.fixture(scope="module")
def clips(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    with torch.inference_mode():
        make_clips(folder, model, 1, seed=5)
    return folder


def test_a_clip_shows_the_very_head_that_is_told(clips, model):
    (path,) = clips.glob("*.mp4")
    frames = torch.cat(list(Frames.open(path).chunks()))
    (track, coarse), (_, refined) = (read_head(clips / kind, path.stem, model) for kind in ("coarse", "refined"))
    assert frames.shape == (FRAMES, 3, SIDE, SIDE) and coarse.displacement is None
    covered = normals_of(refined, performed(track), model, track.camera)[0].square().sum(1) > 0.5
    backdrop = frames[:, :, 2, 2][..., None, None]
    different = (frames - backdrop).abs().amax(1) > 0.06
    assert (different & covered).sum() > 0.9 * different.sum() and (different & covered).sum() > 0.8 * covered.sum()
    assert coarse.width == SIDE and track.landmarks.min() > 0 and track.landmarks.max() < SIDE


def test_relief_turns_the_normals_of_the_face(clips, model):
    (track, coarse), (_, refined) = (read_head(clips / kind, "000", model) for kind in ("coarse", "refined"))
    plain, face = normals_of(coarse, performed(track), model, track.camera)
    detailed, _ = normals_of(refined, performed(track), model, track.camera)
    assert face.any(1).any(1).all() and 5 < apart(detailed, plain, face).mean() < 25
    assert apart(plain, plain, face).max() < 0.1


def test_the_vae_is_the_projection_on_principal_components(tmp_path, generator):
    coarse = 0.35 + 0.3 * torch.rand(6, 3, 5, 5, generator=generator)
    waves = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic")
    (tmp_path / "clips").mkdir()
    with VideoWriter(tmp_path / "clips" / "one.mp4", 5) as writer:
        writer.write(waves.permute(0, 2, 3, 1))
    make_vae(tmp_path / "clips", tmp_path / "vae")
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan.from_pretrained(tmp_path / "vae").eval()
    frame = Frames.open(tmp_path / "clips" / "one.mp4").frame(2)[None, :, None]
    latents = encode(vae, frame)
    found = decode(vae, latents)
    assert latents.shape == (1, LATENT, 1, 8, 8) and (found - frame).square().mean() < 1e-3
    assert torch.allclose(decode(vae, encode(vae, found)), found, atol=5e-3)  # a projection
    half = decode(vae, encode(vae, (frame + found) / 2))
    assert torch.allclose(half, found, atol=5e-3)  # a linear one


def test_angles_are_measured_where_both_show_something():
    left, right = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    left[:, 2], right[:, 2] = 1, 1
    right[0, :, 0, 0] = torch.tensor([0.0, 1.0, 0.0])
    right[0, :, 1, 1] = 0
    face = torch.ones(1, 2, 2, dtype=torch.bool)
    assert apart(left, right, face)[0] == pytest.approx(30.0, abs=0.1)
    face[0, 0, 0] = False
    assert apart(left, right, face)[0] == pytest.approx(0.0, abs=0.1)


def test_the_reader_gives_unit_normals(generator):
    found = NormalReader()(torch.rand(2, 3, 32, 32, generator=generator))
    assert found.shape == (2, 3, 32, 32) and torch.allclose(found.norm(dim=1), torch.ones(2, 32, 32), atol=1e-4)


def test_bars_tell_ratio_gain_and_spread():
    fit = {"true clip": [5.0, 5.0], "lines": [12.0, 12.0], "coarse": [11.0, 11.0], "refined": [10.0, 10.0], WRONG: [30.0, 30.0]}
    read = fit | {"coarse": [11.0, 10.0], "refined": [11.5, 10.5]}
    close = {kind: [20.0] for kind in fit}
    follows, coarse, refined = _bars(fit, read, close, dict.fromkeys(fit, 0.0))
    assert follows["value"] == 3.0 and follows["ok"]
    assert coarse["value"] == 1.5 and coarse["ok"] and coarse["figures"]["standard_error"] == 0.5
    assert refined["value"] == -0.5 and not refined["ok"]
