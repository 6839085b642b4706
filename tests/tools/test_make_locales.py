"""Translations made from pairs of texts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from make_locales import english, escaped, translate  # noqa: E402

INFOS = {
    "ExpPortraitA": {
        "display_name": "Do A",
        "description": "Does it.",
        "input": {"required": {"start": ["INT", {"tooltip": "Where."}]}, "optional": {"end": ["INT", {"tooltip": "Where."}]}},
        "output_name": ["mask"],
        "output_tooltips": ["The mask."],
    },
    "ExpPortraitB": {
        "display_name": "Save B",
        "description": "Saves it.",
        "input": {"required": {"start": ["STRING", {"tooltip": "When."}]}},
        "output_name": [],
        "output_tooltips": None,
    },
    "Other": {},
}
PAIRS = {
    "names": {"start": "S", "end": "E", "mask": "M", "ExpPortraitB.start": "T"},
    "texts": {"Do A": "a", "Does it.": "b", "Where.": "c", "The mask.": "d", "Save B": "e", "Saves it.": "f", "When.": "g"},
}


def test_english_is_taken_from_the_nodes_of_this_pack():
    found = english(INFOS)
    assert found.keys() == {"ExpPortraitA", "ExpPortraitB"}
    assert found["ExpPortraitA"]["inputs"]["end"] == {"name": "end", "tooltip": "Where."}
    assert found["ExpPortraitA"]["outputs"] == {"0": {"name": "mask", "tooltip": "The mask."}}
    assert "outputs" not in found["ExpPortraitB"]


def test_names_may_differ_by_node():
    found, missing, unused = translate(english(INFOS), PAIRS)
    assert found["ExpPortraitA"]["inputs"]["start"] == {"name": "S", "tooltip": "c"}
    assert found["ExpPortraitB"]["inputs"]["start"] == {"name": "T", "tooltip": "g"}
    assert (missing, unused) == ([], [])


def test_a_changed_text_is_missing_and_its_old_pair_unused():
    changed = INFOS | {"ExpPortraitB": INFOS["ExpPortraitB"] | {"description": "Saves it well."}}
    _, missing, unused = translate(english(changed), PAIRS)
    assert missing == ["texts: Saves it well."]
    assert unused == ["texts: Saves it."]


def test_what_the_page_would_take_for_syntax_is_escaped():
    assert escaped({"a": {"b": "me@here {x} | y"}}) == {"a": {"b": "me{'@'}here {'{'}x{'}'} {'|'} y"}}
