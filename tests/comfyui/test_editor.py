"""The live editor of Edit Expression: its route on a running server, and the node in the page."""

from __future__ import annotations

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
