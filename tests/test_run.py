import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import run  # noqa: E402


def test_a_usable_torch_is_recognised():
    paths = run.torch_of(sys.executable)
    assert any(path.endswith("-packages") for path in paths)


def test_a_python_without_torch_has_none(tmp_path):
    import venv

    venv.EnvBuilder(with_pip=False).create(tmp_path / "bare")
    bare = next(p for p in (tmp_path / "bare/bin/python", tmp_path / "bare/Scripts/python.exe") if p.is_file())
    assert run.runs(bare) and run.torch_of(str(bare)) == []


def test_usage_is_printed_without_a_task(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", "everything"])
    assert run.main() == 2
    assert "run.py demo" in capsys.readouterr().out
