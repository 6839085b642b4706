"""Graphs in API form, and what their errors have to look like."""

from __future__ import annotations


def node(kind: str, **inputs) -> dict:
    """A node of an API graph; an input from another node is [its id, number of the output]."""
    return {"class_type": kind, "inputs": inputs}


def portrait(media) -> dict:
    """A photo, its fit and its proxy: `photo`, `fit`, `build`."""
    return {
        "photo": node("LoadImage", image=media.portrait),
        "fit": node("ExpPortraitFit", images=["photo", 0]),
        "build": node("ExpPortraitBuildProxy", images=["photo", 0], head_track=["fit", 0]),
    }


def one_sentence(error: dict, *words: str) -> None:
    """The `execution_error` says in one plain sentence, with these words, what is wrong."""
    message = error["exception_message"].strip()
    assert error["exception_type"] in ("ValueError", "FileNotFoundError"), error
    assert "\n" not in message and len(message) < 300
    for word in words:
        assert word in message, message
