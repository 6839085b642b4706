"""ARKit curves on disk: the CSV of Live Link Face, and the JSON layouts in use."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..proxy import rotation
from ..proxy.files import whole_file
from .arkit_bridge import ARKIT_NAMES
from .arkit_curves import ArkitCurves
from .timecode import codes_of, even_frames, frame_rate, seconds_of

# Live Link Face's order, which is that of ARKit's own documentation.
LIVE_LINK_NAMES = (
    "EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft", "EyeLookUpLeft", "EyeSquintLeft", "EyeWideLeft",
    "EyeBlinkRight", "EyeLookDownRight", "EyeLookInRight", "EyeLookOutRight", "EyeLookUpRight", "EyeSquintRight", "EyeWideRight",
    "JawForward", "JawRight", "JawLeft", "JawOpen", "MouthClose", "MouthFunnel", "MouthPucker", "MouthRight", "MouthLeft",
    "MouthSmileLeft", "MouthSmileRight", "MouthFrownLeft", "MouthFrownRight", "MouthDimpleLeft", "MouthDimpleRight",
    "MouthStretchLeft", "MouthStretchRight", "MouthRollLower", "MouthRollUpper", "MouthShrugLower", "MouthShrugUpper",
    "MouthPressLeft", "MouthPressRight", "MouthLowerDownLeft", "MouthLowerDownRight", "MouthUpperUpLeft", "MouthUpperUpRight",
    "BrowDownLeft", "BrowDownRight", "BrowInnerUp", "BrowOuterUpLeft", "BrowOuterUpRight", "CheekPuff", "CheekSquintLeft",
    "CheekSquintRight", "NoseSneerLeft", "NoseSneerRight", "TongueOut",
)  # fmt: skip
ANGLES = tuple(f"{part}{axis}" for part in ("Head", "LeftEye", "RightEye") for axis in ("Yaw", "Pitch", "Roll"))
COLUMNS = LIVE_LINK_NAMES + ANGLES
TIMECODE, COUNT = "timecode", "blendshapecount"
SECONDS_KEYS = ("time", "time_sec", "timeCode")
VALUES_KEYS = ("weights", "blendshapes", "blendShapes")
LARGEST = 10.0  # no curve reaches this; percent do


class _Table(NamedTuple):
    """What a file holds: columns [T, N] by their names there, and what it says about time."""

    names: list[str]
    values: np.ndarray
    seen: np.ndarray  # [T] bool: False where there was no face, and the values are nothing
    times: np.ndarray | None  # [T] seconds
    fps: float | None


def read_arkit(path: str | os.PathLike, fps: float | None = None) -> ArkitCurves:
    """Curves of a `.csv` or `.json` file.

    CSV as Live Link Face writes it: a header with the curves' names, in any order, case and number, with or without Timecode,
    BlendShapeCount and the angles of head and eyes. JSON in one of these layouts: `{"fps", "names", "frames": [[...]]}`; Audio2Face's
    `{"exportFps", "facsNames", "weightMat": [[...]]}`; and frames that are records, alone in a list or under "frames", each with
    its time in seconds (time, time_sec or timeCode) and its values (weights, blendshapes or blendShapes) by name, or as a
    list in the order of "names".

    Curves that the file does not have are 0; unknown columns are ignored with a warning. The frame rate is `fps` if given, and
    frames are taken as they stand; else it is the file's, or that of its timecodes or times, and lost frames are interpolated.
    So are frames without a face, which Live Link Face writes with a BlendShapeCount of 0; they are not `valid`.

    Angles are taken as radians of Unreal's rotator: yaw to the subject's right, then pitch down, then roll to the
    subject's left shoulder. Eyes were measured on seven recordings; for the head it follows from the same conversion.

    Raises FileNotFoundError; ValueError, in one sentence, for a file of another kind, one without frames or without any
    ARKit curve, a cell that is no number (naming row and column), and a frame rate that neither the file nor `fps` tells.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; give the path of a CSV or JSON file with ARKit curves")
    kind = Path(path).suffix.lower()
    if kind not in (".csv", ".json"):
        raise ValueError(f"{path} is neither .csv nor .json; give a CSV of Live Link Face or a JSON file with ARKit curves")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file; give a CSV of Live Link Face or a JSON file with ARKit curves") from None
    table = _read_csv(path, text) if kind == ".csv" else _read_json(path, text)
    columns = _known_columns(path, table)
    rate = fps or table.fps or (frame_rate(table.times) if table.times is not None else None)
    if rate is None or not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"the frame rate of {path} is not told by the file; give the frames per second (fps)")
    values, seen = _filled(table.values, table.seen), table.seen
    if fps is None and table.fps is None:
        values = even_frames(table.times, np.column_stack([values, seen]), rate)
        values, seen = values[:, :-1], values[:, -1] > 0.999

    def column(name: str) -> Tensor:
        key = _key(name)
        found = values[:, columns[key]] if key in columns else np.zeros(len(values))
        return torch.from_numpy(found.astype(np.float32))

    angles = torch.stack([column(name) for name in ANGLES], -1).unflatten(-1, (3, 3))  # head, left eye, right eye
    head, eyes = angles[:, 0], angles[:, 1:]
    # Live Link Face writes zeros for what it was told not to record.
    return ArkitCurves(
        curves=torch.stack([column(name) for name in ARKIT_NAMES], -1),
        fps=float(rate),
        head=_rotations(head) if head.any() else None,
        eyes=_rotations(eyes) if eyes.any() else None,
        valid=torch.from_numpy(seen),
    )


def write_arkit(path: str | os.PathLike, arkit: ArkitCurves) -> None:
    """Writes curves as `.csv` of Live Link Face (61 columns, 10 decimals) or as `.json` `{"fps", "names", "frames"}`, by the name.

    Frames that are not `valid` are written with the values they were filled with.
    Raises ValueError for another suffix.
    """
    kind = Path(path).suffix.lower()
    if kind not in (".csv", ".json"):
        raise ValueError(f"{path} is neither .csv nor .json; give the file one of these endings")
    order = [ARKIT_NAMES.index(name[0].lower() + name[1:]) for name in LIVE_LINK_NAMES]
    still = arkit.curves.new_zeros(len(arkit), 3, 3)
    if arkit.head is not None:
        still[:, 0] = _angles(arkit.head)
    if arkit.eyes is not None:
        still[:, 1:] = _angles(arkit.eyes)
    rows = torch.cat([arkit.curves[:, order], still.flatten(1)], 1).double().cpu().tolist()
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        if kind == ".json":
            json.dump({"fps": arkit.fps, "names": COLUMNS, "frames": [[round(v, 10) for v in row] for row in rows]}, file)
            return
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["Timecode", "BlendShapeCount", *COLUMNS])
        for code, row in zip(codes_of(len(rows), arkit.fps), rows):
            writer.writerow([code, len(COLUMNS), *(f"{value:.10f}" for value in row)])


def _read_csv(path, text: str) -> _Table:
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        found = "a header and no frame" if rows else "nothing"
        raise ValueError(f"{path} holds {found}; give a CSV with a header and one row per frame")
    header, body = [name.strip() for name in rows[0]], rows[1:]
    keys = [_key(name) for name in header]
    kept = [k for k, key in enumerate(keys) if key in _KNOWN]
    counted = keys.index(COUNT) if COUNT in keys else None
    values, seen = np.zeros((len(body), len(kept))), np.ones(len(body), bool)
    for index, row in enumerate(body):
        if counted is not None and row[counted : counted + 1] == ["0"]:
            seen[index] = False
            continue
        if len(row) != len(header):
            raise ValueError(f"row {index + 2} of {path} has {len(row)} cells, the header {len(header)}; the file is damaged or cut off")
        values[index] = [_number(path, row[k], f"row {index + 2}", header[k]) for k in kept]
    if not seen.any():
        raise ValueError(f"{path} holds no frame with a face (BlendShapeCount is 0 throughout); record it again")
    times = seconds_of([row[keys.index(TIMECODE)] for row in body]) if TIMECODE in keys else None
    _warn_of(path, [name for name, key in zip(header, keys) if key not in _KNOWN and key not in (TIMECODE, COUNT)])
    return _Table([header[k] for k in kept], values, seen, times, None)


def _filled(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Values [T, N], interpolated over the frames that were not seen."""
    at = np.arange(len(values))
    return np.stack([np.interp(at, at[seen], column[seen]) for column in values.T], 1) if len(values.T) else values


def _read_json(path, text: str) -> _Table:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no readable JSON ({error}); it is damaged or of another kind") from None
    about = content if isinstance(content, dict) else {}
    names = about.get("names", about.get("facsNames"))
    frames = content if isinstance(content, list) else about.get("frames", about.get("weightMat"))
    if not isinstance(frames, list) or not (names is None or isinstance(names, list) and all(isinstance(n, str) for n in names)):
        found = ", ".join(list(about)[:5]) or type(content).__name__
        raise ValueError(f"{path} is no JSON of ARKit curves (it holds {found}); give names and frames, or frames with values by name")
    if not frames:
        raise ValueError(f"{path} holds no frame; give a file with at least one")
    metadata = about.get("metadata")
    rates = [place.get(key) for place in (about, metadata) if isinstance(place, dict) for key in ("fps", "exportFps")]
    rate = next((rate for rate in rates if rate is not None), None)
    fps = None if rate is None else _number(path, rate, "its head", "fps")
    rows, times = zip(*(_record(path, frame, names, f"frame {k}") for k, frame in enumerate(frames)))
    if names is None:
        names = list(dict.fromkeys(name for row in rows for name in row))
    kept = [name for name in names if _key(name) in _KNOWN]
    _warn_of(path, [name for name in names if _key(name) not in _KNOWN])
    values = np.array([[_number(path, row.get(name, 0.0), f"frame {k}", name) for name in kept] for k, row in enumerate(rows)])
    known = None if None in times else np.array(times)
    return _Table(kept, values.reshape(len(rows), -1), np.ones(len(rows), bool), known, fps)


def _record(path, frame, names: list[str] | None, place: str) -> tuple[dict, float | None]:
    """Values by name of one frame, and its time in seconds if it has one."""
    time = None
    if isinstance(frame, dict):
        time = next((_number(path, frame[key], place, key) for key in SECONDS_KEYS if key in frame), None)
        frame = next((frame[key] for key in VALUES_KEYS if key in frame), frame)
    if isinstance(frame, list) and names is not None:
        if len(frame) != len(names):
            raise ValueError(f"{place} of {path} has {len(frame)} values for {len(names)} names; the file is cut off or damaged")
        frame = dict(zip(names, frame))
    if not isinstance(frame, dict):
        raise ValueError(f"{place} of {path} is {type(frame).__name__}; give a list of values in the order of names, or values by name")
    return frame, time


def _known_columns(path, table: _Table) -> dict[str, int]:
    keys = [_key(name) for name in table.names]
    twice = [name for name, key in zip(table.names, keys) if keys.count(key) > 1]
    if twice:
        raise ValueError(f"{path} has the column {twice[0]} more than once; keep one of them")
    curves = [k for k, key in enumerate(keys) if key in _CURVES]
    if not curves:
        raise ValueError(f"{path} has no ARKit curve, such as {LIVE_LINK_NAMES[0]}; give a file with at least one of the 52")
    largest = np.abs(table.values[:, curves]).max(0)
    if largest.max() > LARGEST:
        at = int(largest.argmax())
        name = table.names[curves[at]]
        raise ValueError(f"{name} of {path} reaches {largest[at]:g}; ARKit's curves go from 0 to 1, so divide percent by 100")
    return {key: k for k, key in enumerate(keys)}


def _number(path, cell, place: str, column: str) -> float:
    try:
        value = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{column} in {place} of {path} is {str(cell)[:20]!r}, which is no number; correct it or leave the column out")
    return value


def _warn_of(path, unknown: list[str]) -> None:
    if unknown:
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        warnings.warn(f"{path} has columns that are no ARKit curves and are ignored: {', '.join(unknown[:8])}{more}", stacklevel=4)


def _key(name: str) -> str:
    """One spelling for EyeBlinkLeft, eyeBlinkLeft, eye_blink_left and eyeBlink_L."""
    name = re.sub("_l$", "left", re.sub("_r$", "right", name.strip().lower()))
    return re.sub("[^a-z0-9]", "", name)


_CURVES = {_key(name) for name in LIVE_LINK_NAMES}
_KNOWN = _CURVES | {_key(name) for name in ANGLES}


def _rotations(angles: Tensor) -> Tensor:
    """Yaw, pitch and roll [..., 3] of Unreal's rotator to rotation vectors [..., 3].

    Unreal's axes are x forward, y right, z up and left-handed; the face looks against its x. So yaw turns to the subject's right
    (about -y here), pitch down (about x) and roll to the left shoulder (about -z), applied in the reverse order.
    """
    yaw, pitch, roll = angles.unbind(-1)
    zero = torch.zeros_like(yaw)
    turns = ((zero, -yaw, zero), (pitch, zero, zero), (zero, zero, -roll))
    first, second, third = (rotation.to_matrix(torch.stack(turn, -1)) for turn in turns)
    return rotation.to_rotvec(first @ second @ third)


def _angles(rotvec: Tensor) -> Tensor:
    """Inverse of `_rotations`, for pitch within a quarter turn."""
    m = rotation.to_matrix(rotvec.double())
    yaw = -torch.atan2(m[..., 0, 2], m[..., 2, 2])
    pitch = torch.asin(-m[..., 1, 2].clamp(-1, 1))
    roll = -torch.atan2(m[..., 1, 0], m[..., 1, 1])
    return torch.stack([yaw, pitch, roll], -1).to(rotvec)
