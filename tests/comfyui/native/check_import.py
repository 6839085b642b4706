"""What the pack's import and its schemas cost: no weights, no kernels, nothing that a user may never need."""

import asyncio
import sys

from in_comfyui import ROOT

LATE = ("diffusers", "peft", "smplx", "warp")  # imported where they are used


def test_import_opens_no_weights_and_compiles_no_kernels():
    opened = []
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
    had = {name for name in LATE if name in sys.modules}  # ComfyUI may have them itself
    assert "expportrait.nodes" not in sys.modules

    from expportrait.nodes import ExpPortraitExtension

    nodes = asyncio.run(ExpPortraitExtension().get_node_list())
    assert len({node.GET_SCHEMA().node_id for node in nodes}) == len(nodes) > 20
    assert {name for name in LATE if name in sys.modules} == had
    ours = [path for path in opened if path.startswith(str(ROOT))]
    assert any(path.endswith((".py", ".pyc")) for path in ours), "the hook sees what is opened"
    assert [path for path in ours if path.endswith((".safetensors", ".npz", ".jpg", ".pt"))] == []
