"""Workflows as they were once saved load in the page with the values that they had.

fixtures/prompts/NAME.json is what the page made of fixtures/workflows/NAME.json when it was saved.
"""

from __future__ import annotations

import json
from pathlib import Path

FIXTURES = Path(__file__).with_name("fixtures")
NAMES = sorted(path.stem for path in (FIXTURES / "workflows").glob("*.json"))


def test_saved_workflows_keep_their_values(page):
    assert NAMES
    for name in NAMES:
        workflow, expected = (json.loads((FIXTURES / kind / f"{name}.json").read_text("utf-8")) for kind in ("workflows", "prompts"))
        page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        found = page.evaluate("window.app.graphToPrompt()")["output"]
        assert found.keys() == expected.keys(), name
        for key, node in expected.items():
            assert found[key]["class_type"] == node["class_type"]
            kept = {field: found[key]["inputs"].get(field) for field in node["inputs"]}
            assert kept == node["inputs"], f"{name}: {node['class_type']}"  # it may have more by now
    assert page.errors == []
