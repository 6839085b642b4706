"""The live editor of Edit Expression: its route on a running server, and the node in the page."""

from __future__ import annotations

import base64
import io
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from graphs import node, portrait  # noqa: E402

ROUTE = "/expportrait/editor"
KIND = "ExpPortraitEditExpression"


def ask(comfyui, body, **headers) -> tuple[int, bytes]:
    """Status and content of a POST to the editor's route; a body that is no bytes goes as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(comfyui.url + ROUTE, data, {"Content-Type": "application/json"} | headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def drawn(comfyui, values=None, **options) -> np.ndarray:
    """The picture of a request that has to succeed."""
    status, content = ask(comfyui, {"values": values or {}} | options)
    assert status == 200, content
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "JPEG"
    return np.asarray(picture).astype(int)


def apart(first: np.ndarray, second: np.ndarray) -> float:
    return float(abs(first - second).mean())


@pytest.fixture(scope="module")
def edited(comfyui, media) -> dict:
    """What the page hears of a run: the outputs of an Edit Expression on the portrait."""
    graph = portrait(media) | {
        "edit": node("ExpPortraitEditExpression", head_proxy=["build", 0], expression="smile", seconds=0.1),
        "preview": node("ExpPortraitPreview", source_image=["build", 1], head_proxy=["build", 0], head_motion=["edit", 0]),
        "show": node("PreviewImage", images=["preview", 0]),
    }
    return comfyui.run(graph)


def test_before_a_run_a_plain_head_is_drawn_and_follows(comfyui):
    rest = drawn(comfyui)
    assert rest.shape == (384, 384, 3) and rest.std() > 20
    assert apart(rest, drawn(comfyui)) == 0
    assert apart(rest, drawn(comfyui, {"jaw_open": 1.0})) > 0.5
    assert apart(rest, drawn(comfyui, {"expression": "surprise", "strength": 1.0})) > 0.5
    assert apart(rest, drawn(comfyui, {"expression": "surprise", "strength": 0.0})) == 0
    assert apart(rest, drawn(comfyui, yaw=50)) > 5
    assert drawn(comfyui, side=128, settled=False).shape == (128, 128, 3)


def test_after_a_run_the_person_is_drawn(comfyui, edited):
    (head,) = edited["edit"]["expportrait_head"]
    person = drawn(comfyui, head=head)
    assert apart(person, drawn(comfyui)) > 5
    assert apart(person, drawn(comfyui, {"smile": 1.0}, head=head)) > 0.2
    assert len(edited["show"]["images"]) == 2  # the run itself is as ever


def test_it_answers_while_a_workflow_runs(comfyui, media):
    graph = portrait(media) | {
        "edit": node(KIND, head_proxy=["build", 0], expression="surprise", seconds=1.0),
        "maps": node("ExpPortraitRender", head_proxy=["build", 0], head_motion=["edit", 0], map="textured"),
        "show": node("PreviewImage", images=["maps", 0]),
    }
    alone = drawn(comfyui, {"jaw_open": 0.5})
    prompt, pictures = comfyui.queue(graph), []
    while not comfyui.get(f"/history/{prompt}"):
        pictures.append(drawn(comfyui, {"jaw_open": 0.5}))
    assert comfyui.wait(prompt)["status"]["status_str"] == "success"
    assert pictures and all(apart(alone, picture) == 0 for picture in pictures)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"\xff\xfe\x00", 400, "no JSON"),
        (b"[" * 4000, 400, "no JSON"),
        (b"[]", 400, 'no "values"'),
        ({"values": 3}, 400, 'no "values"'),
        (b'{"values": {"smile": NaN}}', 400, "smile is no finite number"),
        (b'{"values": {"smile": 1e999}}', 400, "smile is no finite number"),
        (b'{"values": {"smile": 1%s}}' % (b"0" * 400), 400, "smile is no finite number"),
        ({"values": {"smile": "1"}}, 400, "smile is no finite number"),
        ({"values": {"smile": True}}, 400, "smile is no finite number"),
        ({"values": {"smile": 7}}, 400, "mouthSmile is 7"),
        ({"values": {"head_yaw": 720}}, 400, "headYaw is 720"),
        ({"values": {"grin": 1}}, 400, "no slider 'grin'"),
        ({"values": {"expression": "grin"}}, 400, "no expression 'grin'"),
        ({"values": {"expression": ["smile"]}}, 400, "expression is no text"),
        ({"values": {}, "head": "../../secret"}, 404, "run the workflow"),
        ({"values": {}, "head": 5}, 400, "head is no text"),
        ({"values": {}, "side": 100000}, 400, "side is 100000"),
        ({"values": {}, "side": -1}, 400, "side is -1"),
        ({"values": {}, "side": 99.5}, 400, "side must be a whole number"),
        ({"values": {}, "side": True}, 400, "side is True"),
        ({"values": {}, "settled": "yes"}, 400, "settled true or false"),
        ({"values": {}, "yaw": 500}, 400, "yaw is 500"),
        (b'{"values": {}, "pitch": -Infinity}', 400, "pitch is no finite number"),
        (b" " * 100_000, 413, "at most 4096 bytes"),
    ],
)
def test_bad_requests_are_refused_in_one_sentence(comfyui, body, status, words):
    found, content = ask(comfyui, body)
    message = json.loads(content)["error"]
    assert found == status and words in message and "\n" not in message and len(message) < 400


def test_only_the_own_page_may_ask(comfyui):
    assert ask(comfyui, {"values": {}}, **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert ask(comfyui, {"values": {}}, **{"Origin": "http://elsewhere.example"})[0] == 403
    assert ask(comfyui, {"values": {}}, **{"Content-Type": "text/plain"})[0] == 415
    assert comfyui.fetch(ROUTE)[0] in (404, 405)
    assert comfyui.fetch("/system_stats")[0] == 200


def test_a_client_that_leaves_harms_nobody(comfyui):
    """Clients that ask and hang up, many at a time; the server answers the next one and logs no traceback."""
    import socket

    body = json.dumps({"values": {"smile": 1.0}}).encode()
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(6):
        with socket.create_connection(("127.0.0.1", comfyui.port)) as connection:
            connection.sendall(head.encode() + body)
    start = time.monotonic()
    drawn(comfyui, settled=False)
    assert time.monotonic() - start < 60


def test_nothing_of_this_left_a_traceback(comfyui):
    log = comfyui.log.split("To see the GUI go to")[-1]
    assert "Traceback" not in log and "Unhandled exception" not in log, log[-4000:]


# In the page

FIND = f"const node = window.app.graph._nodes.find(n => n.type === '{KIND}');"
PICTURE = FIND + "const picture = node?.widgets.find(w => w.name === 'expression_editor').picture;"
NEAR = f"() => {{ {FIND} Object.assign(window.app.canvas.ds, {{ scale: 0.7, offset: [60 - node.pos[0], 40 - node.pos[1]] }}) }}"
AT_REST = f"() => {{ {PICTURE} return picture?.count > 0 && picture.shown === picture.wanted && picture.settled && !picture.request }}"


class Editor:
    """The node in the page, and hands for it."""

    def __init__(self, page, vue: bool):
        self.page, self.vue, self.asked, self.errors = page, vue, [], []
        page.on("request", lambda request: self.asked.append(request) if request.url.endswith(ROUTE) else None)
        page.on("console", lambda message: self.errors.append(message.text) if self._ours(message) else None)

    @staticmethod
    def _ours(message) -> bool:
        return message.type == "error" and ("ExpPortrait" in message.location["url"] or "expression" in message.text)

    def load(self, workflow: dict) -> None:
        """Puts a workflow into the page, near enough to be worked with."""
        self.page.evaluate("async workflow => { await window.app.loadGraphData(workflow) }", workflow)
        self.page.evaluate(NEAR)
        self.page.evaluate("() => window.app.canvas.setDirty(true, true)")

    def get(self, expression: str):
        """The value of a JavaScript expression on `node` and `picture`."""
        return self.page.evaluate(f"() => {{ {PICTURE} return {expression} }}")

    def rest(self) -> np.ndarray:
        """What the picture shows once it has come to rest."""
        self.page.wait_for_function(AT_REST, timeout=120_000)
        return self._pixels()

    def _pixels(self) -> np.ndarray:
        url = self.get("picture.canvas.toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")).astype(int)

    def values(self) -> dict:
        """Values of the widgets that are saved."""
        return self.get("Object.fromEntries(node.widgets.filter(w => w.serialize !== false).map(w => [w.name, w.value]))")

    def changes(self) -> dict:
        """Values that are not the defaults."""
        return {name: value for name, value in self.values().items() if value != DEFAULTS[name]}

    def slider(self, name: str) -> tuple[float, float, float]:
        """Left end, right end and height of a slider's track, in the window."""
        if self.vue:
            box = self.page.locator(f"[data-slot=slider][aria-label={name}]").bounding_box()
            return box["x"], box["x"] + box["width"], box["y"] + box["height"] / 2
        place = """() => { %s
            const widget = node.widgets.find(w => w.name === '%s'), canvas = window.app.canvas
            const box = canvas.canvas.getBoundingClientRect(), { scale, offset } = canvas.ds
            const at = (x, y) => [(x + offset[0]) * scale + box.left, (y + offset[1]) * scale + box.top]
            const y = node.pos[1] + widget.y + 10
            return [at(node.pos[0] + 15, y)[0], at(node.pos[0] + node.size[0] - 15, y)[0], at(0, y)[1]] }"""
        return tuple(self.page.evaluate(place % (FIND, name)))

    def drag_slider(self, name: str, start: float, stop: float, steps: int = 10) -> None:
        """From a share of the track to another, in about a second."""
        left, right, y = self.slider(name)
        self.drag((left + start * (right - left), y), (left + stop * (right - left), y), steps)

    def drag(self, start: tuple[float, float], stop: tuple[float, float], steps: int = 10) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        for step in range(1, steps + 1):
            mouse.move(*(a + (b - a) * step / steps for a, b in zip(start, stop)))
            self.page.wait_for_timeout(100)
        mouse.up()
        self.page.wait_for_timeout(400)

    def picture_middle(self) -> tuple[float, float]:
        box = self.page.locator(".expportrait-editor canvas").bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def press(self, text: str) -> None:
        self.page.get_by_role("button", name=text, exact=True).click()

    def undo(self) -> None:
        self.page.keyboard.press("Control+z")
        self.page.wait_for_timeout(1000)


def saved_inputs() -> dict:
    schema = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))[KIND]["inputs"]
    return {name: what for name, what in schema.items() if not what["type"].startswith("EXPPORTRAIT")}


DEFAULTS = {name: what["default"] for name, what in saved_inputs().items()}


def workflow(values: dict) -> dict:
    """A workflow of the node alone, as packs without the editor saved it: its values in the order of its inputs."""
    edit = {
        "id": 7, "type": KIND, "pos": [20, 20], "size": [330, 600], "flags": {}, "order": 0, "mode": 0, "properties": {},
        "inputs": [{"name": name, "type": f"EXPPORTRAIT_{name.upper()}", "link": None} for name in ("head_proxy", "head_motion")],
        "outputs": [{"name": "head_motion", "type": "EXPPORTRAIT_HEAD_MOTION", "links": None}, {"name": "fps", "type": "FLOAT"}],
        "widgets_values": [values.get(name, default) for name, default in DEFAULTS.items()],
    }  # fmt: skip
    head = {"id": "0b8a3f62-29b5-4c0e-8c35-5a3f5cc7a001", "version": 0.4, "last_node_id": 7, "last_link_id": 0}
    return head | {"nodes": [edit], "links": [], "groups": [], "config": {}, "extra": {}}


@pytest.fixture(scope="module", params=["classic", "vue"])
def opened(comfyui, browser, request):
    """The page under one of its renderings, for all tests of it."""
    page = browser.new_page(viewport={"width": 1400, "height": 1150})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    for step in range(2):  # the rendering is chosen in the page, and holds from its next start
        page.goto(comfyui.url)
        page.wait_for_function("window.app?.extensionManager && window.app?.canvas && window.app?.graph", timeout=180_000)
        page.wait_for_function(f"'{KIND}' in LiteGraph.registered_node_types", timeout=180_000)
        page.evaluate("vue => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)", request.param == "vue")
        page.wait_for_timeout(1000)
    yield Editor(page, request.param == "vue")
    page.close()


@pytest.fixture
def editor(opened):
    """The node alone in the page, as a workflow file brings it."""
    opened.errors.clear()
    opened.page.errors.clear()
    opened.load(workflow({}))
    yield opened
    assert opened.page.errors == [] and opened.errors == []


def test_the_picture_follows_a_dragged_slider_and_undo(editor):
    first = editor.rest()
    assert "stand-in" in editor.get("picture.hint.textContent")
    before = len(editor.asked)
    editor.drag_slider("jaw_open", 1 / 3, 0.66)
    second = editor.rest()
    assert 0.8 < editor.values()["jaw_open"] < 1.2 and list(editor.changes()) == ["jaw_open"]
    assert apart(first, second) > 0.5
    moving = [request.post_data_json["values"]["jaw_open"] for request in editor.asked[before:]]
    assert len(set(moving)) >= 3  # drawn on the way, not only at the end
    editor.undo()
    assert apart(first, editor.rest()) < 0.01 and editor.changes() == {}


def test_dragging_the_picture_looks_around_and_a_double_click_looks_straight(editor):
    first, place = editor.rest(), editor.get("[...node.pos, ...window.app.canvas.ds.offset]")
    x, y = editor.picture_middle()
    editor.drag((x, y), (x + 60, y + 10))
    turned = editor.rest()
    assert apart(first, turned) > 5
    assert editor.changes() == {} and editor.get("[...node.pos, ...window.app.canvas.ds.offset]") == place
    editor.press("smile")  # the angle outlives an undo, which makes the node anew
    editor.undo()
    assert apart(turned, editor.rest()) < 0.01
    editor.page.mouse.dblclick(*editor.picture_middle())
    assert apart(first, editor.rest()) < 0.01


def test_presets_set_plain_widgets_and_a_double_click_resets_a_slider(editor):
    first = editor.rest()
    editor.drag_slider("frown", 1 / 3, 0.8)
    editor.press("surprise")
    assert editor.changes()["expression"] == "surprise" and editor.values()["strength"] == 1
    assert apart(first, editor.rest()) > 2
    assert editor.get("picture.wanted").count("surprise") == 1
    editor.undo()
    assert list(editor.changes()) == ["frown"]
    left, right, y = editor.slider("frown")
    editor.page.mouse.dblclick(left + 0.3 * (right - left), y)
    editor.page.wait_for_timeout(600)
    assert editor.changes() == {} and apart(first, editor.rest()) < 0.01
    editor.press("anger")
    editor.drag_slider("smile", 1 / 3, 0.9)
    assert list(editor.changes()) == ["expression", "smile"]
    editor.press("reset")
    assert editor.changes() == {} and apart(first, editor.rest()) < 0.01


def test_workflows_load_and_save_as_ever(editor):
    kinds = saved_inputs()
    values = {name: round(0.011 * k, 3) for k, name in enumerate(DEFAULTS) if kinds[name]["type"] == "FLOAT"}
    values |= {"expression": "fear", "keyframes": "0: smile", "mode": "replace", "fps": 30}
    editor.load(workflow(values))
    assert editor.values() == DEFAULTS | values
    editor.rest()
    saved = editor.page.evaluate("() => window.app.graph.serialize()")
    assert saved["nodes"][0]["widgets_values"] == list((DEFAULTS | values).values())
    assert "expression_editor" not in json.dumps(saved)
    editor.load(saved)
    assert editor.values() == DEFAULTS | values
    prompt = editor.page.evaluate("async () => (await window.app.graphToPrompt()).output")
    assert {name: prompt["7"]["inputs"][name] for name in DEFAULTS} == DEFAULTS | values


def test_nothing_is_asked_for_what_is_not_seen(editor):
    editor.rest()

    def asked_after(change: str) -> int:
        editor.page.evaluate(f"() => {{ {FIND} {change}; window.app.canvas.setDirty(true, true) }}")
        editor.page.wait_for_timeout(1500)
        before = len(editor.asked)
        editor.page.evaluate(f"() => {{ {FIND} node.widgets.find(w => w.name === 'smile').value += 0.1 }}")
        editor.page.wait_for_timeout(1500)
        return len(editor.asked) - before

    assert asked_after("") > 0
    assert asked_after("node.collapse()") == 0
    assert asked_after("node.collapse()") > 0
    assert asked_after("window.app.canvas.ds.offset = [9000, 40]") == 0
    assert asked_after("window.app.canvas.ds.offset = [60, 40]") > 0


def test_copies_and_removed_nodes_make_no_errors(editor):
    editor.rest()
    editor.page.evaluate(
        f"""() => {{ {FIND} const copy = node.clone(); copy.pos = [420, 20]; window.app.graph.add(copy)
            window.app.graph.remove(node) }}"""
    )
    editor.rest()
    assert editor.values() == DEFAULTS
    editor.page.evaluate(f"() => {{ {FIND} window.app.graph.remove(node) }}")
    editor.page.wait_for_timeout(500)
    before = len(editor.asked)
    editor.page.wait_for_timeout(1000)
    assert len(editor.asked) == before
    assert editor.page.locator(".expportrait-editor").count() == 0


def test_a_run_brings_the_person_who_stays_when_the_page_is_loaded_again(editor, media, shots):
    graph = portrait(media) | {
        "edit": node(KIND, head_proxy=["build", 0], **DEFAULTS | {"smile": 0.5, "seconds": 0.1}),
        "preview": node("ExpPortraitPreview", source_image=["build", 1], head_proxy=["build", 0], head_motion=["edit", 0]),
        "show": node("PreviewImage", images=["preview", 0]),
    }
    page = editor.page
    page.evaluate("async graph => { await window.app.loadApiJson(graph, 'editor') }", graph)
    page.evaluate(NEAR)
    stand_in = editor.rest()
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    page.wait_for_function(f"() => {{ {PICTURE} return picture?.shown && JSON.parse(picture.shown).head }}", timeout=180_000)
    person = editor.rest()
    assert apart(person, stand_in) > 5 and editor.get("picture.hint.textContent") == ""
    page.screenshot(path=shots / f"editor_{'vue' if editor.vue else 'classic'}.png")
    saved = page.evaluate("() => window.app.graph.serialize()")
    page.reload()
    page.wait_for_function("window.app?.extensionManager && window.app?.canvas && window.app?.graph", timeout=180_000)
    page.wait_for_function(f"'{KIND}' in LiteGraph.registered_node_types", timeout=180_000)
    page.evaluate("async saved => { await window.app.loadGraphData(saved) }", saved)
    page.evaluate(NEAR)
    assert apart(person, editor.rest()) < 0.01
    page.evaluate("() => sessionStorage.clear()")


def test_the_page_left_no_traceback_in_the_log(comfyui):
    test_nothing_of_this_left_a_traceback(comfyui)
