import fnmatch
import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("EXPPORTRAIT_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture(scope="session")
def model():
    from expportrait.proxy.head_model import load_head_model

    return load_head_model()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared test data, or a skip."""
    if not DATA.is_dir():
        pytest.skip(f"the shared data is not at {DATA} (set EXPPORTRAIT_DATA)")
    return DATA


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shipped_files() -> list[Path]:
    """Paths, relative to the root, of every file that neither .gitignore nor .comfyignore leaves out."""
    patterns = [".git/"]
    for name in (".gitignore", ".comfyignore"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        patterns += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    found = []
    for folder, folders, files in os.walk(ROOT):
        place = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if not _ignored(place / name, patterns, True)]
        found += [place / name for name in files if not _ignored(place / name, patterns, False)]
    return sorted(found)


def _ignored(path: Path, patterns: list[str], folder: bool) -> bool:
    """The part of gitignore's rules that this project uses: a name or a path from the root, `*`, and `/` at the end for folders."""
    for pattern in patterns:
        if pattern.endswith("/") and not folder:
            continue
        pattern = pattern.rstrip("/")
        target = path.as_posix() if "/" in pattern else path.name
        if fnmatch.fnmatch(target, pattern.lstrip("/")):
            return True
    return False
