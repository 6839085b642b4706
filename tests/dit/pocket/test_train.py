import json
import sys
from pathlib import Path

import pytest
import torch

from expportrait.cli import main
from expportrait.dit.expression_code import code_size
from expportrait.dit.pocket.data import Examples, make_data
from expportrait.dit.pocket.model import PocketConfig
from expportrait.dit.pocket.train import (
    CHECKPOINT,
    GRID,
    LOG,
    PocketTrainSettings,
    Trainer,
    head_psnr,
    predict,
    read_run,
    train_run,
)
from expportrait.dit.pocket.weights import load_model, save_model
from expportrait.proxy.frames import read_image

sys.path.insert(0, str(Path(__file__).parent))
from pocket_things import TINY, shaken  # noqa: E402

SIDE = 64


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("examples")
    with torch.inference_mode():
        make_data(path, model, 2, 2, SIDE, seed=9)
    return path


@pytest.fixture(scope="module")
def examples(folder):
    return Examples(folder)


def trainer_of(model, examples, steps=6, **changes):
    config = PocketConfig(model.model_id, code_size(model), temporal=changes.get("frames", 1) > 1, **TINY)
    return Trainer(config, PocketTrainSettings(steps, **{"batch": 2, "side": 32, **changes}), examples)


def test_the_loss_falls(model, examples):
    trainer = trainer_of(model, examples, 60, batch=4, rate=5e-3)
    with torch.inference_mode(False), torch.enable_grad():
        losses = [trainer.train_step() for _ in range(60)]
    assert sum(losses[-20:]) < 0.85 * sum(losses[:20])


@pytest.mark.parametrize("frames", [1, 2])
def test_a_stopped_run_goes_on_with_the_same_losses(model, examples, tmp_path, frames):
    whole, first, second = (trainer_of(model, examples, frames=frames) for _ in range(3))
    losses = [whole.train_step() for _ in range(6)]
    assert [first.train_step() for _ in range(3)] == losses[:3]
    first.save(tmp_path)
    second.load(tmp_path)
    assert second.step == 3 and [second.train_step() for _ in range(3)] == losses[3:]
    for name, value in whole.tensors.items():
        assert torch.equal(value, second.tensors[name]), name


def test_another_seed_is_another_run(model, examples):
    assert trainer_of(model, examples, seed=1).train_step() != trainer_of(model, examples).train_step()


def test_runs_in_pieces_inside_inference_mode(model, examples, tmp_path):
    with torch.inference_mode():
        train_run(tmp_path, trainer_of(model, examples), examples, minutes=0)
        assert read_run(tmp_path / CHECKPOINT)[0] == 0
        steps = []
        train_run(tmp_path, trainer_of(model, examples), examples, look_every=3, progress=lambda *state: steps.append(state))
        train_run(tmp_path, trainer_of(model, examples), examples, progress=lambda *state: steps.append(state))
    assert steps == [(k, 6) for k in range(1, 7)]
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    assert all(line["held_out_head_psnr"] > 5 and line["loss"] > 0 for line in lines)
    assert read_image(tmp_path / GRID.format(6)).shape == (4 * 32, 5 * 32, 3)


def test_only_attention_over_time_is_trained_on_clips(model, examples):
    trainer = trainer_of(model, examples, frames=2)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for _ in range(3):
        trainer.train_step()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("over_time" in name or "timed" in name for name in changed)


def test_a_run_starts_from_given_weights(model, examples):
    first = trainer_of(model, examples)
    first.train_step()
    second = Trainer(first.config, first.settings, examples, first.mean)
    assert all(torch.equal(a, b) for a, b in zip(second.model.parameters(), first.mean.parameters()))


def test_predictions_depend_on_the_seed_only(model, examples):
    pocket, batch = shaken(PocketConfig(model.model_id, code_size(model), **TINY)), examples.read([0, 0, 1], 32)
    result = predict(pocket, batch, 2)
    assert torch.equal(result, predict(pocket, batch, 2)) and not torch.equal(result, predict(pocket, batch, 2, seed=1))
    assert torch.allclose(result[0], result[1], atol=1e-6)


def test_psnr_counts_the_head_alone(examples):
    batch = examples.read([0])
    head = batch["focus"] >= 0.6
    wrong = torch.where(head, batch["target"], 1 - batch["target"])
    assert head_psnr(wrong, batch) == 100
    assert abs(head_psnr(batch["target"] + 0.1 * head, batch) - 20) < 1e-3


def test_bad_settings_and_other_runs_are_told(model, examples, tmp_path):
    for bad in ({"steps": 0}, {"steps": 1, "batch": 3, "frames": 2}, {"steps": 1, "rate": 0.0}, {"steps": 1, "seed": 500}):
        with pytest.raises(ValueError):
            PocketTrainSettings(**bad)
    with pytest.raises(ValueError, match="cannot be read at 48"):
        trainer_of(model, examples, side=48)
    trainer_of(model, examples).save(tmp_path)
    with pytest.raises(ValueError, match="begun with rate = 0.001, now 0.01 is asked for"):
        trainer_of(model, examples, rate=0.01).load(tmp_path)
    with pytest.raises(ValueError, match="codes of 61 numbers, the model of 7"):
        Trainer(PocketConfig("head", 7, **TINY), PocketTrainSettings(1, side=32), examples)
    save_model(tmp_path / "model.safetensors", trainer_of(model, examples).config, trainer_of(model, examples).mean.state_dict())
    with pytest.raises(ValueError, match="no checkpoint"):
        read_run(tmp_path / "model.safetensors")


def test_a_loss_that_is_not_finite_stops_the_run(model, examples):
    trainer = trainer_of(model, examples)
    with torch.no_grad():
        trainer.model.leave.bias.fill_(torch.nan)
    before = [p.clone() for p in trainer.mean.parameters()]
    with pytest.raises(FloatingPointError, match="lower --rate"):
        trainer.train_step()
    assert trainer.step == 0 and all(torch.equal(a, b) for a, b in zip(before, trainer.mean.parameters()))


def test_the_commands_make_data_train_and_export(model, tmp_path, capsys):
    data, held, run, out = (str(tmp_path / name) for name in ("data", "held", "run", "pocket.safetensors"))
    for path, seed in ((data, "0"), (held, "1")):
        assert main(["train-pocket", "data", "--out", path, "--people", "1", "--frames", "1", "--size", "64", "--seed", seed]) == 0
    arguments = ["train-pocket", "train", "--data", data, "--held-out", held, "--run", run, "--steps", "1", "--batch", "1", "--size", "32"]
    assert main(arguments) == 0
    assert main(["train-pocket", "export", "--run", run, "--out", out]) == 0
    loaded = load_model(out, model.model_id)
    assert loaded.config == PocketConfig.small(model.model_id, code_size(model))
    assert main([*arguments[:-1], "64"]) == 1
    assert "begun with side = 32" in capsys.readouterr().err
    assert main(["train-pocket", "train", "--data", str(tmp_path / "none"), "--held-out", held, "--run", run, "--steps", "1"]) == 1
    assert "holds no training data" in capsys.readouterr().err
