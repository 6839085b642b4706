"""Names and tooltips in English and Chinese: as the schemas say, complete, and in the page."""

from __future__ import annotations

import json
import sys

import pytest

TOOL = "renew it with tools/make_locales.py"


@pytest.fixture(scope="module")
def locales(root):
    sys.path.insert(0, str(root / "tools"))
    import make_locales

    return make_locales


@pytest.fixture(scope="module")
def nodes(comfyui, locales) -> dict:
    return locales.english(comfyui.get("/object_info"))


def of_file(root, language: str) -> dict:
    return json.loads((root / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def test_english_is_what_the_schemas_say(root, locales, nodes):
    assert of_file(root, "en") == locales.escaped(nodes), TOOL


def test_chinese_is_complete_and_of_today(root, locales, nodes):
    found, missing, unused = locales.translate(nodes, locales.pairs_of("zh"))
    assert missing == [], "translate these in tools/locales/zh.json"
    assert unused == [], "no node has these any more; take them out of tools/locales/zh.json"
    assert of_file(root, "zh") == locales.escaped(found), TOOL


def test_server_serves_both(comfyui, root):
    served = comfyui.get("/i18n")
    for language in ("en", "zh"):
        ours = {name: node for name, node in served[language]["nodeDefs"].items() if name.startswith("ExpPortrait")}
        assert ours == of_file(root, language)


@pytest.fixture
def chinese(page):
    """The page in Chinese."""
    page.evaluate("window.app.extensionManager.setting.set('Comfy.Locale', 'zh')")
    page.reload()
    page.ready()
    yield page
    page.evaluate("window.app.extensionManager.setting.set('Comfy.Locale', 'en')")


def test_page_shows_nodes_in_chinese(chinese, root):
    shown = chinese.evaluate(
        """() => Object.fromEntries(
            Object.keys(LiteGraph.registered_node_types).filter(type => type.startsWith('ExpPortrait')).map(type => {
                const node = LiteGraph.createNode(type);
                return [type, {
                    title: node.title,
                    inputs: Object.fromEntries(node.inputs.map(slot => [slot.name, slot.localized_name])),
                    outputs: (node.outputs ?? []).map(slot => slot.localized_name),
                }];
            }))"""
    )
    expected = of_file(root, "zh")
    assert shown.keys() == expected.keys()
    for name, node in expected.items():
        assert shown[name]["title"] == node["display_name"]
        assert shown[name]["inputs"] == {key: entry["name"] for key, entry in node.get("inputs", {}).items()}
        assert shown[name]["outputs"] == [entry["name"] for entry in node.get("outputs", {}).values()]
    assert chinese.errors == []


def test_page_shows_tooltips_in_chinese(chinese, root, shots):
    tooltip = of_file(root, "zh")["ExpPortraitTransfer"]["inputs"]["head_proxy"]["tooltip"]
    place = chinese.evaluate(
        """() => {
            const graph = window.app.graph, canvas = window.app.canvas;
            graph.clear();
            for (const [type, x] of [['ExpPortraitFit', 60], ['ExpPortraitTransfer', 460], ['ExpPortraitRender', 900]]) {
                const node = LiteGraph.createNode(type);
                node.pos = [x, 120];
                graph.add(node);
            }
            window.app.extensionManager.setting.set('LiteGraph.Node.TooltipDelay', 100);
            canvas.ds.scale = 1; canvas.ds.offset = [0, 0]; canvas.setDirty(true, true);
            const box = canvas.canvas.getBoundingClientRect(), [x, y] = graph._nodes[1].getConnectionPos(true, 0);
            return [box.left + x, box.top + y];
        }"""
    )
    chinese.mouse.move(place[0] + 60, place[1] + 40)
    chinese.mouse.move(place[0] + 4, place[1] + 1, steps=4)
    chinese.get_by_text(tooltip).wait_for(timeout=10_000)
    chinese.screenshot(path=shots / "chinese.png")
