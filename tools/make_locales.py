"""Writes locales/: names and tooltips of every node, for ComfyUI's page.

    COMFYUI_PATH=... PYTHON_OF_COMFYUI tools/make_locales.py

English is what the nodes' schemas say. Chinese comes from tools/locales/zh.json, which pairs English texts with Chinese ones;
names of inputs and outputs are paired by themselves, or as NODE.name where one name has several meanings. An English text
that was changed has no pair any more: the tool lists what is missing and what nobody asks for, and ends with 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "ExpPortrait"
SYNTAX = str.maketrans({character: f"{{'{character}'}}" for character in "{}@|$"})  # of the page's message format


def english(infos: dict[str, dict]) -> dict[str, dict]:
    """nodeDefs of nodes as /object_info tells them, {node id: info}."""
    return {name: _node(info) for name, info in sorted(infos.items()) if name.startswith(PREFIX)}


def _node(info: dict) -> dict:
    fields = {name: rest[0] for group in ("required", "optional") for name, (_, *rest) in info["input"].get(group, {}).items()}
    outputs = enumerate(zip(info["output_name"], info["output_tooltips"] or [], strict=True))
    texts = {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {name: {"name": name, "tooltip": options["tooltip"]} for name, options in fields.items()},
        "outputs": {str(number): {"name": name, "tooltip": tooltip} for number, (name, tooltip) in outputs},
    }
    return {key: value for key, value in texts.items() if value}


def translate(nodes: dict[str, dict], pairs: dict[str, dict[str, str]]) -> tuple[dict[str, dict], list[str], list[str]]:
    """English nodeDefs in another language by `pairs`, {"names": {...}, "texts": {...}}; what is missing; what is not used."""
    used, missing = set(), []

    def pick(kind: str, *keys: str) -> str:
        key = next((key for key in keys if key in pairs[kind]), None)
        if key is None:
            missing.append(f"{kind}: {keys[-1]}")
            return keys[-1]
        used.add((kind, key))
        return pairs[kind][key]

    def sockets(node: str, entries: dict) -> dict:
        return {
            key: {"name": pick("names", f"{node}.{entry['name']}", entry["name"]), "tooltip": pick("texts", entry["tooltip"])}
            for key, entry in entries.items()
        }

    found = {}
    for name, node in nodes.items():
        found[name] = {key: pick("texts", node[key]) for key in ("display_name", "description")}
        found[name] |= {key: sockets(name, node[key]) for key in ("inputs", "outputs") if key in node}
    unused = [f"{kind}: {key}" for kind, entries in pairs.items() for key in entries if (kind, key) not in used]
    return found, sorted(set(missing)), unused


def escaped(value):
    """Texts as the page's message format wants them."""
    if isinstance(value, dict):
        return {key: escaped(entry) for key, entry in value.items()}
    return value.translate(SYNTAX)


def pairs_of(language: str) -> dict[str, dict[str, str]]:
    return json.loads((ROOT / "tools" / "locales" / f"{language}.json").read_text(encoding="utf-8"))


def as_json(value: dict) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def node_infos() -> dict[str, dict]:
    """What /object_info would tell of the pack's nodes."""
    import asyncio
    import dataclasses

    sys.path.insert(0, str(ROOT / "tests/comfyui/native"))
    import in_comfyui  # noqa: F401  (imports the core, and the pack as expportrait)

    from expportrait.nodes import ExpPortraitExtension

    classes = asyncio.run(ExpPortraitExtension().get_node_list())
    infos = (node.GET_NODE_INFO_V1() for node in classes)
    infos = (info if isinstance(info, dict) else dataclasses.asdict(info) for info in infos)
    return {info["name"]: info for info in infos}


def main() -> int:
    nodes = english(node_infos())
    translated, missing, unused = translate(nodes, pairs_of("zh"))
    for language, found in (("en", nodes), ("zh", translated)):
        path = ROOT / "locales" / language / "nodeDefs.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_json(escaped(found)), encoding="utf-8")
    for title, entries in (("without a translation", missing), ("translated, but in no node", unused)):
        for entry in entries:
            print(f"{title}: {entry}")
    return 1 if missing or unused else 0


if __name__ == "__main__":
    sys.exit(main())
