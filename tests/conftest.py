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
