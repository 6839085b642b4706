import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def listed(key: str) -> set[str]:
    return set(re.findall(r'"([^"]+)"', re.search(rf"^{key} = \[(.*?)\]", PROJECT, re.S | re.M)[1]))


def test_both_lists_of_requirements_agree_and_leave_torch_alone():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = {line for line in lines if line and not line.startswith("#")}
    assert required == listed("dependencies")
    assert not any("torch" in name for name in required)


def test_every_package_is_listed():
    folders = {path.parent for top in ("proxy", "transfer", "dit", "nodes") for path in (ROOT / top).rglob("__init__.py")}
    names = {"expportrait"} | {".".join(["expportrait", *folder.relative_to(ROOT).parts]) for folder in folders}
    assert names == listed("packages")
