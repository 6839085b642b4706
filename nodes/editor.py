"""What the editor in Edit Expression asks for and gets: a person with the values of the node's widgets.

A node that ran tells the page the head's name, see `remember_head`. Nothing is written to disk.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import io
import json

import torch
from PIL import Image

from ..proxy.head_model import load_head_model
from ..proxy.plain_head import plain_head
from ..transfer.expression_controls import find_name
from ..transfer.expression_view import SIDE, ExpressionView
from .expression_sliders import edit_amounts
from .types import BuiltProxy

HEADS, VIEWS = 6, 2  # people that are remembered, and that are ready to be drawn
QUALITY = 90

_heads: collections.OrderedDict[str, BuiltProxy] = collections.OrderedDict()


class UnknownHead(ValueError):
    """The page names a head that is not remembered any more."""


@dataclasses.dataclass(frozen=True)
class DrawRequest:
    """What the page asks for."""

    amounts: dict[str, float]
    head: str | None  # name of `remember_head`; None for the plain head
    yaw: float  # degrees
    pitch: float
    side: int  # pixels
    settled: bool

    @staticmethod
    def parse(body: bytes) -> DrawRequest:
        """Reads {"values": {widget: value}, "head", "yaw", "pitch", "side", "settled"}, all but the values optional.

        Raises ValueError, in one sentence, for what is not such a request.
        """
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise ValueError("the request is no JSON; send an object with the values of the widgets") from None
        if not isinstance(asked, dict) or not isinstance(asked.get("values"), dict):
            raise ValueError('the request has no "values"; send an object with the values of the widgets')
        values = dict(asked["values"])
        expression = values.pop("expression", "neutral")
        head, side, settled = asked.get("head"), asked.get("side", SIDE), asked.get("settled", True)
        if not isinstance(expression, str):
            raise ValueError("expression is no text; send the name of an expression")
        if not (head is None or isinstance(head, str)):
            raise ValueError("head is no text; send the name that the node told, or null")
        if not isinstance(side, int) or not isinstance(settled, bool):
            raise ValueError("side must be a whole number and settled true or false; send them so")
        strength = _number("strength", values.pop("strength", 1.0))
        amounts = edit_amounts(find_name(expression), strength, {name: _number(name, value) for name, value in values.items()})
        return DrawRequest(amounts, head, _number("yaw", asked.get("yaw", 0)), _number("pitch", asked.get("pitch", 0)), side, settled)


def remember_head(head: BuiltProxy) -> str:
    """Keeps a head for the editor, the last ones only; returns its name, a hash of all that is drawn."""
    proxy = head.proxy.to("cpu")
    hasher = hashlib.sha256(proxy.model_id.encode())
    for field in dataclasses.fields(proxy):
        value = getattr(proxy, field.name)
        if isinstance(value, torch.Tensor):
            hasher.update(value.detach().contiguous().numpy())
        else:
            hasher.update(repr(value).encode())
    name = hasher.hexdigest()[:24]
    _heads[name] = BuiltProxy(head.model, proxy)
    _heads.move_to_end(name)
    while len(_heads) > HEADS:
        _heads.popitem(last=False)
    return name


def draw(asked: DrawRequest) -> bytes:
    """The picture as a JPEG. Raises UnknownHead, and ValueError for what cannot be drawn."""
    with torch.inference_mode():
        view = _view(asked.head)
        picture = view.picture(asked.amounts, asked.yaw, asked.pitch, asked.side, asked.settled)
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


@functools.lru_cache(maxsize=VIEWS)
def _view(name: str | None) -> ExpressionView:
    if name is None:
        model = load_head_model()
        return ExpressionView(plain_head(model), model)
    head = _heads.get(name)
    if head is None:
        raise UnknownHead("this head is not remembered any more; run the workflow to see it again")
    return ExpressionView(head.proxy, head.model)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e6:
        raise ValueError(f"{name} is no finite number; send a number")
    return float(value)
