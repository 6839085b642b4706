import dataclasses

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install expportrait[diffusers]")
pytest.importorskip("peft", reason="peft is not installed: pip install expportrait[diffusers]")

from expportrait.dit.adapter.config import AdapterConfig  # noqa: E402
from expportrait.dit.train.cache import decode, encode  # noqa: E402
from expportrait.dit.train.look import conditions, look, sample  # noqa: E402
from expportrait.dit.train.shards import Shard, to_bytes  # noqa: E402

from ..small_wan import vae_of  # noqa: E402
from .test_loop import CONFIG, SETTINGS, shard_of, shards, trainer_of  # noqa: E402, F401


def first(folder):
    return Shard.load(sorted(folder.iterdir())[0])[0]


def test_looking_leaves_the_training_as_it_is(shards):  # noqa: F811
    plain = list(trainer_of(shards).run())
    watched, vae = trainer_of(shards), vae_of()
    losses = list(watched.run(each=lambda step: look(watched, [first(shards)], vae, steps=2)))
    assert losses == plain


def test_a_picture_has_its_columns_and_a_row_per_frame(shards):  # noqa: F811
    trainer, vae, shard = trainer_of(shards), vae_of(), first(shards)
    picture = look(trainer, [shard, shard], vae, steps=1)
    assert picture.shape == (6 * 32, 4 * 32, 3) and picture.min() >= 0 and picture.max() <= 1
    reference, condition, made, truth = picture.split(32, dim=1)
    assert torch.equal(condition[:32], conditions(shard)[:, 0].permute(1, 2, 0))
    expected = decode(vae, shard.latents[None])[0].permute(1, 2, 3, 0)
    assert torch.allclose(truth[32:64], expected[2], atol=1e-6)
    assert torch.equal(reference[:32], reference[64:96]) and not torch.equal(made, truth)


def test_sampling_goes_to_what_the_model_predicts(shards):  # noqa: F811
    trainer, shard = trainer_of(shards), first(shards)
    goal = torch.randn(shard.latents.shape, generator=torch.Generator().manual_seed(9))
    trainer.velocity = lambda noisy, level, references: (noisy - goal[None]) / level[:, None, None, None, None]
    assert torch.allclose(sample(trainer, shard, steps=3), goal, atol=1e-5)


def test_conditions_are_shown_whatever_they_are(generator):
    depth = dataclasses.replace(CONFIG, inputs=("depth",))
    assert conditions(shard_of(generator, depth)).shape == (3, 5, 32, 32)
    none = dataclasses.replace(shard_of(generator), control=to_bytes(torch.zeros(0, 5, 32, 32)))
    assert torch.equal(conditions(none), torch.zeros(3, 5, 32, 32))


def test_decoding_undoes_what_encoding_normalises(generator):
    vae, video = vae_of(), torch.rand(1, 3, 5, 32, 32, generator=generator)
    with torch.no_grad():
        raw = vae.decode(vae.encode(2 * video - 1).latent_dist.mode()).sample
    assert torch.allclose(decode(vae, encode(vae, video)), ((raw + 1) / 2).clamp(0, 1), atol=1e-5)


def test_a_base_without_a_reference_picture_is_looked_at_by_its_geometry(tmp_path, generator):
    config = dataclasses.replace(CONFIG, reference="tokens")
    shard = dataclasses.replace(shard_of(generator), references=torch.zeros(2, 0, 2, 4, 4))
    shard.save(tmp_path / "shards" / "0.safetensors", config)
    from expportrait.dit.train.loop import Trainer

    from ..small_wan import TEXT, transformer_of

    trainer = Trainer(transformer_of(16), tmp_path / "shards", torch.zeros(1, 4, TEXT), SETTINGS, "cpu")
    assert look(trainer, [shard], vae_of(), steps=1).shape == (96, 128, 3)
    assert isinstance(trainer.config, AdapterConfig)
