"""Colours of the pack's sockets in the page."""

from __future__ import annotations

import re

import pytest

MAKE = """() => {
    window.app.graph.clear();
    const [fit, build, transfer] = ['Fit', 'BuildProxy', 'Transfer'].map((name, at) => {
        const node = LiteGraph.createNode('ExpPortrait' + name);
        node.pos = [80 + 420 * at, 120];
        window.app.graph.add(node);
        return node;
    });
    fit.connect(0, build, 1);
    build.connect(0, transfer, 0);
    window.app.canvas.ds.scale = 0.7;
    window.app.canvas.ds.offset = [0, 0];
    window.app.canvas.setDirty(true, true);
}"""

SHOWN = "rgb => [...document.querySelectorAll('.slot-dot')].some(dot => getComputedStyle(dot).backgroundColor === rgb)"


@pytest.fixture(scope="module")
def colours(root) -> dict[str, str]:
    return dict(re.findall(r'(EXPPORTRAIT_\w+): "(#\w{6})"', (root / "web/js/colours.js").read_text(encoding="utf-8")))


def test_every_type_has_a_colour_of_its_own(root, colours):
    types = re.findall(r'io\.Custom\("(\w+)"\)', (root / "nodes/types.py").read_text(encoding="utf-8"))
    assert sorted(types) == sorted(colours)
    assert len(set(colours.values())) == len(colours)


def set_palette(page, name: str) -> None:
    page.evaluate("name => window.app.extensionManager.setting.set('Comfy.ColorPalette', name)", name)
    page.wait_for_timeout(500)


def test_colours_survive_other_palettes(page, colours, shots):
    tables = "[window.app.canvas.default_connection_color_byType, LGraphCanvas.link_type_colors]"
    page.evaluate(MAKE)
    for palette in ("dark", "light", "dark"):
        set_palette(page, palette)
        for table in page.evaluate(tables):
            assert {key: table[key] for key in colours} == colours
    page.wait_for_timeout(500)
    page.screenshot(path=shots / "colours.png")
    assert page.errors == []


def test_vue_nodes_have_the_colours(page, colours, shots):
    page.evaluate("window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    try:
        page.reload()
        page.ready()
        for palette in ("light", "dark"):
            set_palette(page, palette)
            page.evaluate(MAKE)
            for name in ("HEAD_TRACK", "HEAD_PROXY", "HEAD_MOTION"):
                numbers = ", ".join(str(int(colours[f"EXPPORTRAIT_{name}"][at : at + 2], 16)) for at in (1, 3, 5))
                page.wait_for_function(SHOWN, arg=f"rgb({numbers})", timeout=30_000)
        page.screenshot(path=shots / "colours_vue.png")
        assert page.errors == []
    finally:
        page.evaluate("window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")
