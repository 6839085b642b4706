import dataclasses

import pytest
import torch

from expportrait.dit.adapter.adapter_file import load_adapter
from expportrait.dit.adapter.config import AdapterConfig
from expportrait.dit.train.shards import Shard, find_shards, to_bytes

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install expportrait[diffusers]")
pytest.importorskip("peft", reason="peft is not installed: pip install expportrait[diffusers]")

from expportrait.dit.train.loop import Trainer, TrainSettings, export_adapter  # noqa: E402

from ..small_wan import LAYERS, TEXT, WIDTH, transformer_of  # noqa: E402

CONFIG = AdapterConfig(
    width=WIDTH, layers=LAYERS, control_width=8, reference_width=8, explicit_size=5, code_size=16, expression_width=64, expression_every=2
)
SETTINGS = TrainSettings(steps=6, rate=3e-3, rank=4, seed=1)


def shard_of(generator, config=CONFIG):
    def rand(*shape):
        return torch.randn(shape, generator=generator)

    return Shard(
        latents=rand(16, 2, 4, 4),
        references=rand(2, 20, 2, 4, 4),
        control=to_bytes(rand(config.control_channels, 5, 32, 32)),
        geometry=to_bytes(rand(2, config.reference_channels, 32, 32)),
        numbers=rand(5, 5),
        faces=torch.zeros(5, 3, 0, 0, dtype=torch.uint8),
        weight=torch.ones(2, 4, 4),
    )


@pytest.fixture
def shards(tmp_path, generator):
    for number in range(3):
        shard_of(generator).save(tmp_path / "shards" / f"{number}.safetensors", CONFIG)
    return tmp_path / "shards"


def trainer_of(shards, settings=SETTINGS):
    text = torch.randn(1, 7, TEXT, generator=torch.Generator().manual_seed(2))
    return Trainer(transformer_of(), shards, text, settings, "cpu")


def evaluate(trainer, shard):
    """Loss at fixed noise, all conditions given."""
    with torch.no_grad():
        kept = dataclasses.replace(trainer.settings, drop_control=0, drop_reference=0, drop_expression=0, drop_all=0)
        trainer.settings, settings = kept, trainer.settings
        losses = [float(trainer.loss([shard], torch.Generator().manual_seed(seed))) for seed in range(8)]
        trainer.settings = settings
    return sum(losses) / len(losses)


def test_the_loss_falls_and_the_base_stays(shards):
    trainer = trainer_of(shards, dataclasses.replace(SETTINGS, steps=60))
    base = {name: value.clone() for name, value in trainer.transformer.named_parameters() if not value.requires_grad}
    shard, _ = Shard.load(sorted(shards.iterdir())[0])
    before = evaluate(trainer, shard)
    assert len(list(trainer.run())) == 60
    assert evaluate(trainer, shard) < 0.9 * before
    for name, value in trainer.transformer.named_parameters():
        if not value.requires_grad:
            assert torch.equal(value, base[name]), name
    changed = [name for name, value in trainer.trained().items() if value.grad is not None and value.grad.any()]
    assert {name.split(".")[1] for name in changed if name.startswith("adapter.")} == {
        "control", "reference", "explicit", "expression", "attention",
    }  # fmt: skip


def test_a_killed_run_goes_on_with_the_same_losses(shards, tmp_path):
    whole = list(trainer_of(shards).run())
    first = trainer_of(shards)
    losses = []
    for loss in first.run():
        losses.append(loss)
        if len(losses) == 3:
            first.save(tmp_path / "checkpoint.safetensors")
            break
    second = trainer_of(shards)
    second.load(tmp_path / "checkpoint.safetensors")
    losses += list(second.run())
    assert losses == whole and len(set(whole)) == 6


def test_the_export_is_what_was_trained(shards, tmp_path):
    trainer = trainer_of(shards)
    list(trainer.run())
    trainer.save(tmp_path / "checkpoint.safetensors")
    export_adapter(tmp_path / "checkpoint.safetensors", tmp_path / "adapter.safetensors", "tiny")
    file = load_adapter(tmp_path / "adapter.safetensors")
    assert file.config.trained_on == "tiny"
    names = {name.split("blocks.0.")[1] for name in file.lora if "blocks.0." in name}
    layers = ("self_attn.q", "cross_attn.o", "ffn.0", "ffn.2")
    assert {f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"} <= names
    assert all(name.startswith("diffusion_model.blocks.") for name in file.lora)
    shard, _ = Shard.load(sorted(shards.iterdir())[0])
    expected = trainer.condition([shard], [0])
    adapter = file.build()
    control, numbers = shard.control[None].float() / 127, shard.numbers[None]
    found = adapter.encode(control, shard.geometry[:1].float() / 127, numbers)
    for part in ("control", "reference", "expression"):
        assert torch.allclose(getattr(found, part), getattr(expected, part), atol=1e-6)


def test_clips_of_a_step_do_not_meet(shards):
    trainer = trainer_of(shards)
    both = [Shard.load(path)[0] for path in sorted(shards.iterdir())[:2]]
    level = torch.tensor([0.3, 0.8])
    noisy, references = torch.stack([shard.latents for shard in both]), torch.stack([shard.references[1] for shard in both])
    random = torch.Generator().manual_seed(4)
    for parameter in trainer.adapter.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=random)
    with torch.no_grad():
        trainer.attached.set(trainer.condition(both, [1, 1]))
        found = trainer.velocity(noisy, level, references)
        for k, shard in enumerate(both):
            trainer.attached.set(trainer.condition([shard], [1]))
            alone = trainer.velocity(noisy[k : k + 1], level[k : k + 1], references[k : k + 1])
            assert (found[k] - alone[0]).abs().max() < 2e-3
    assert (found[0] - found[1]).abs().max() > 0.5


def test_more_clips_in_a_step_are_learned_from_and_must_be_alike(shards, generator):
    settings = dataclasses.replace(SETTINGS, batch=4)
    losses = list(trainer_of(shards, settings).run())
    assert len(losses) == 6 and losses == list(trainer_of(shards, settings).run())
    assert losses != list(trainer_of(shards).run())
    small = shard_of(generator)
    dataclasses.replace(small, latents=small.latents[:, :1]).save(shards / "0.safetensors", CONFIG)
    with pytest.raises(ValueError, match="several sizes or lengths"):
        list(trainer_of(shards, settings).run())


def test_dropped_parts_are_dropped_at_their_rates(shards):
    trainer = trainer_of(shards, dataclasses.replace(SETTINGS, drop_control=0.5, drop_expression=0.0, drop_reference=1.0, drop_all=0.0))
    generator = torch.Generator().manual_seed(0)
    found = [trainer._dropped(generator) for _ in range(200)]
    assert all("reference" in each and "expression" not in each for each in found)
    assert 60 < sum("control" in each for each in found) < 140
    shard, _ = Shard.load(sorted(shards.iterdir())[0])
    assert trainer.condition([shard], [0], frozenset(("control",))).control is None
    assert trainer.condition([shard], [0], frozenset(("expression",))).expression is None


def test_the_face_weight_counts(shards, generator):
    trainer, shard = trainer_of(shards), shard_of(generator)
    half = shard.weight.clone()
    half[:, :2] = 0
    weighted = [dataclasses.replace(shard, weight=weight) for weight in (shard.weight, half, 2 * half)]
    losses = [float(trainer.loss([each], torch.Generator().manual_seed(3)).detach()) for each in weighted]
    assert losses[1] == pytest.approx(losses[2]) and losses[0] != pytest.approx(losses[1])


def test_wrong_shards_checkpoints_and_settings_are_told(shards, tmp_path, generator):
    with pytest.raises(ValueError, match="no shards"):
        find_shards(tmp_path)
    other = dataclasses.replace(CONFIG, inputs=("depth",))
    shard_of(generator, other).save(shards / "other.safetensors", other)
    with pytest.raises(ValueError, match="different adapters"):
        find_shards(shards)
    (shards / "other.safetensors").unlink()
    trainer = trainer_of(shards)
    with pytest.raises(ValueError, match="no checkpoint"):
        trainer.load(sorted(shards.iterdir())[0])
    trainer.save(tmp_path / "checkpoint.safetensors")
    with pytest.raises(ValueError, match="another adapter or LoRA"):
        changed = trainer_of(shards)
        changed.adapter.config = dataclasses.replace(CONFIG, trained_on="x")
        changed.load(tmp_path / "checkpoint.safetensors")
    for wrong in ({"steps": 0}, {"batch": 0}, {"drop_control": 2}, {"rate": 0}, {"rank": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            dataclasses.replace(SETTINGS, **wrong)
