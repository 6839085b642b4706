"""The container of binary glTF 2.0: accessors in one buffer, JSON beside it (Khronos, glTF 2.0 specification, 2021)."""

from __future__ import annotations

import json
import os
import struct

import numpy as np

from .files import whole_file

_COMPONENT = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
_WIDTH = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
VERTEX_TARGET, INDEX_TARGET = 34962, 34963


class GlbFile:
    """Collects arrays as accessors, then writes them with a document that refers to them by number."""

    def __init__(self):
        self._views: list[dict] = []
        self._accessors: list[dict] = []
        self._parts: list[bytes] = []
        self._size = 0

    def view(self, content: bytes, target: int | None = None) -> int:
        """Number of a new buffer view; it starts at a multiple of four bytes."""
        view = {"buffer": 0, "byteOffset": self._size, "byteLength": len(content)} | ({"target": target} if target else {})
        padding = b"\0" * (-len(content) % 4)
        self._parts += [content, padding]
        self._size += len(content) + len(padding)
        self._views.append(view)
        return len(self._views) - 1

    def accessor(self, array: np.ndarray, kind: str, target: int | None = None, bounds: bool = False) -> int:
        """Number of a new accessor over an array [N, width of kind] or [N]; `bounds` adds its minimum and maximum."""
        array = np.ascontiguousarray(array).reshape(-1, _WIDTH[kind])
        accessor = {"bufferView": self.view(_bytes(array), target)} | _describe(array, kind, bounds)
        self._accessors.append(accessor)
        return len(self._accessors) - 1

    def morph_accessor(self, array: np.ndarray, threshold: float) -> int:
        """Accessor of morph displacements [N, 3]: only those of the moved vertices, if that is shorter.

        A vertex counts as moved if one of its coordinates is above `threshold`.
        """
        moved = np.flatnonzero(np.abs(array).max(1) > threshold).astype(np.uint32)
        if len(moved) * 16 > len(array) * 12:
            return self.accessor(array, "VEC3", VERTEX_TARGET, bounds=True)
        if len(moved) == 0:
            moved = np.zeros(1, np.uint32)  # the specification asks for at least one
        values = np.where(np.abs(array[moved]).max(1, keepdims=True) > threshold, array[moved], 0)
        full = np.zeros_like(array)
        full[moved] = values
        sparse = {
            "count": len(moved),
            "indices": {"bufferView": self.view(_bytes(moved)), "componentType": _COMPONENT["uint32"]},
            "values": {"bufferView": self.view(_bytes(values))},
        }
        self._accessors.append(_describe(full, "VEC3", bounds=True) | {"sparse": sparse})
        return len(self._accessors) - 1

    def write(self, path: str | os.PathLike, document: dict) -> None:
        """Writes the file whole or not at all; `document` lacks only the arrays collected here."""
        arrays = {"accessors": self._accessors, "bufferViews": self._views, "buffers": [{"byteLength": self._size}]}
        text = json.dumps(document | arrays, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        with whole_file(path) as temporary, open(temporary, "wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + self._size))
            file.write(struct.pack("<I4s", len(text), b"JSON") + text)
            file.write(struct.pack("<I4s", self._size, b"BIN\0"))
            file.writelines(self._parts)


def _describe(array: np.ndarray, kind: str, bounds: bool) -> dict:
    accessor = {"componentType": _COMPONENT[array.dtype.name], "count": len(array), "type": kind}
    if bounds:
        accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
    return accessor


def _bytes(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
