import dataclasses
import os
import stat
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from expportrait.proxy.files import load_dataclass, move_dataclass, read_metadata, save_dataclass, whole_file
from expportrait.proxy.head_track import HeadTrack

FORMAT = "expportrait.toy"


@dataclasses.dataclass(frozen=True)
class Toy:
    model_id: str
    first: Tensor
    second: Tensor
    size: tuple[float, float]
    note: str | None = None


@pytest.fixture
def toy(generator):
    return Toy("head-a", torch.rand(3, 4, generator=generator), torch.arange(5), (1.5, 2.0))


def test_older_versions_are_read_where_declared(tmp_path, toy):
    path = tmp_path / "toy.safetensors"
    save_dataclass(path, toy, FORMAT, 2)
    assert load_dataclass(path, Toy, FORMAT, 3, oldest=2).model_id == "head-a"
    for version, oldest in ((3, None), (4, 3), (1, 1)):
        with pytest.raises(ValueError, match=f"has version 2 of {FORMAT}, this program reads version {version}"):
            load_dataclass(path, Toy, FORMAT, version, oldest=oldest)


def test_round_trip(tmp_path, toy):
    path = tmp_path / "new folder" / "toy.safetensors"
    save_dataclass(path, toy, FORMAT, 3)
    back = load_dataclass(path, Toy, FORMAT, 3, "head-a")
    assert torch.equal(back.first, toy.first) and torch.equal(back.second, toy.second)
    assert (back.model_id, back.size, back.note) == ("head-a", (1.5, 2.0), None)
    assert read_metadata(path)["format"] == FORMAT
    assert os.listdir(path.parent) == ["toy.safetensors"]


def test_fields_may_share_memory(tmp_path, toy):
    shared = torch.rand(6, 4)
    value = dataclasses.replace(toy, first=shared, second=shared[1:3].T)
    save_dataclass(tmp_path / "toy.safetensors", value, FORMAT, 1)
    back = load_dataclass(tmp_path / "toy.safetensors", Toy, FORMAT, 1)
    assert torch.equal(back.first, shared) and torch.equal(back.second, shared[1:3].T)


def test_round_trip_in_inference_mode(tmp_path):
    with torch.inference_mode():
        track = HeadTrack(
            "head-a", torch.rand(4), torch.rand(2, 5), torch.rand(2, 6, 3), torch.rand(2, 3), 900.0, 64, 48, 25.0,
            torch.tensor([True, False]), torch.rand(2), torch.rand(2, 478, 2), torch.rand(2, 478, 2),
        )  # fmt: skip
        track.save(tmp_path / "track.safetensors")
        back = HeadTrack.load(tmp_path / "track.safetensors", "head-a")
    for field in dataclasses.fields(track):
        wanted, found = getattr(track, field.name), getattr(back, field.name)
        assert torch.equal(wanted, found) if isinstance(wanted, Tensor) else wanted == found


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_dataclass(tmp_path / "none.safetensors", Toy, FORMAT, 1)


def test_foreign_file(tmp_path):
    (tmp_path / "text.safetensors").write_text("no tensors here")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_dataclass(tmp_path / "text.safetensors", Toy, FORMAT, 1)
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=f"format none, expected {FORMAT}"):
        load_dataclass(tmp_path / "other.safetensors", Toy, FORMAT, 1)


@pytest.mark.parametrize("size", [0, 4, 40, -7])
def test_truncated_file(tmp_path, toy, size):
    path = tmp_path / "toy.safetensors"
    save_dataclass(path, toy, FORMAT, 1)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_dataclass(path, Toy, FORMAT, 1)


def test_other_format_version_or_model(tmp_path, toy):
    path = tmp_path / "toy.safetensors"
    save_dataclass(path, toy, FORMAT, 1)
    with pytest.raises(ValueError, match=f"format {FORMAT}, expected expportrait.other"):
        load_dataclass(path, Toy, "expportrait.other", 1)
    with pytest.raises(ValueError, match="version 1 .* reads version 2"):
        load_dataclass(path, Toy, FORMAT, 2)
    with pytest.raises(ValueError, match="head-a, but head-b is loaded"):
        load_dataclass(path, Toy, FORMAT, 1, "head-b")


def test_file_that_lacks_a_field(tmp_path, toy):
    path = tmp_path / "toy.safetensors"
    save_dataclass(path, dataclasses.replace(toy, second=None), FORMAT, 1)
    with pytest.raises(ValueError, match="lacks the field second"):
        load_dataclass(path, Toy, FORMAT, 1)


def test_nothing_half_written_stays(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="cancelled"), whole_file(path) as temporary:
        temporary.write_bytes(b"half of the ne")
        raise RuntimeError("cancelled")
    assert os.listdir(tmp_path) == ["out.bin"] and path.read_bytes() == b"old"
    with whole_file(path) as temporary:
        temporary.write_bytes(b"new")
    assert os.listdir(tmp_path) == ["out.bin"] and path.read_bytes() == b"new"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
def test_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    with whole_file(tmp_path / "ours") as temporary:
        temporary.write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_move(toy):
    moved = move_dataclass(toy, "meta")
    assert moved.first.is_meta and moved.second.is_meta and moved.size == toy.size


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_saved_dataclasses_have_the_usual_permissions(tmp_path, model):
    from expportrait.transfer.presets import load_preset

    load_preset("speaking", model)[0].save(tmp_path / "motion.safetensors")
    (tmp_path / "plain").touch()
    assert (tmp_path / "motion.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
