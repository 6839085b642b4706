"""ARKit curves and motions of other heads by the command `expportrait`."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.cli import main
from expportrait.transfer.arkit_curves import ArkitCurves, motion_from_arkit
from expportrait.transfer.arkit_files import read_arkit, write_arkit
from expportrait.transfer.motion import HeadMotion

sys.path.insert(0, str(Path(__file__).parent))
from heads import make_proxy  # noqa: E402


@pytest.fixture
def arkit(model, generator) -> ArkitCurves:
    return ArkitCurves(torch.rand(30, 52, generator=generator) * model.expression_bounds[:, 1], 25.0)


def test_curves_to_motion_and_back(model, arkit, tmp_path):
    write_arkit(tmp_path / "a.csv", arkit)
    names = [str(tmp_path / name) for name in ("a.csv", "m.safetensors", "b.json", "c.csv")]
    for into, out in zip(names, names[1:]):
        assert main(["curves", "--in", into, "--out", out]) == 0
    motion = HeadMotion.load(names[1], model.model_id)
    torch.testing.assert_close(motion.expression, arkit.curves, atol=1e-6, rtol=0)
    again = read_arkit(names[3])
    torch.testing.assert_close(again.curves, arkit.curves, atol=1e-5, rtol=0)
    assert again.fps == 25.0
    assert main(["curves", "--in", names[0], "--out", names[1], "--fps", "50"]) == 0
    assert HeadMotion.load(names[1]).fps == 50


def test_curves_drive_a_proxy(model, arkit, generator, tmp_path):
    make_proxy(model, generator).save(tmp_path / "p.safetensors")
    write_arkit(tmp_path / "a.csv", arkit)
    motion_from_arkit(arkit, model).save(tmp_path / "d.safetensors")
    moved = []
    for driver in ("a.csv", "d.safetensors"):
        arguments = ["transfer", "--proxy", "p.safetensors", "--driver", driver, "--out", f"{driver}.out"]
        assert main([str(tmp_path / a) if "." in a else a for a in arguments]) == 0
        moved.append(HeadMotion.load(tmp_path / f"{driver}.out", model.model_id))
    assert len(moved[0]) == 30
    torch.testing.assert_close(moved[0].expression, moved[1].expression, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--in {}/a.csv --out {}/m.txt", "ends in .txt"),
        ("--in {}/a.csv --out {}/m", "ends in nothing"),
        ("--in {}/b.csv --out {}/m.safetensors", "frame rate"),
        ("--in {}/absent.csv --out {}/m.safetensors", "absent.csv does not exist"),
        ("--in {}/absent.safetensors --out {}/m.csv", "absent.safetensors does not exist"),
        ("--in {}/m.safetensors --out {}/m.csv --fps 30", "leave --fps out"),
        ("--in {}/other.safetensors --out {}/m.csv", "made with head model other"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(model, arkit, tmp_path, capsys, arguments, message):
    write_arkit(tmp_path / "a.csv", arkit)
    (tmp_path / "b.csv").write_text("JawOpen\n0.5\n")
    dataclasses.replace(motion_from_arkit(arkit, model), model_id="other").save(tmp_path / "other.safetensors")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["curves", *(a.replace("{}", str(tmp_path)) for a in arguments.split())]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("expportrait: ") and message in line]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
