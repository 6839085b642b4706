"""Safe, versioned files: safetensors with JSON metadata, written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

T = TypeVar("T")
FORMAT_KEY = "format"


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` on success, removes it on any error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{uuid.uuid4().hex}{path.suffix}")
    temporary.touch()
    usual = temporary.stat().st_mode
    temporary.unlink()
    try:
        yield temporary
        temporary.chmod(usual)  # some writers, safetensors among them, close their files to other users
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_dataclass(path: str | os.PathLike, value: Any, format: str, version: int) -> None:
    """Writes a dataclass of tensors and plain (JSON) values; fields that are None are left out."""
    tensors, plain = {}, {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if isinstance(item, torch.Tensor):
            # A copy each, since safetensors refuses fields that share their memory.
            tensors[field.name] = item.detach().cpu().clone(memory_format=torch.contiguous_format)
        elif item is not None:
            plain[field.name] = item
    metadata = {FORMAT_KEY: format, "version": str(version), "model_id": value.model_id, "fields": json.dumps(plain)}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Metadata of a safetensors file. Raises FileNotFoundError, or ValueError if it is none."""
    return read_safetensors(path, tensors=False)[0]


def read_safetensors(path: str | os.PathLike, tensors: bool = True) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of a safetensors file. Raises FileNotFoundError, or ValueError if it is none."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; give the path of a safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()} if tensors else {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); it is damaged or of another kind") from None


def load_dataclass(
    path: str | os.PathLike, kind: type[T], format: str, version: int, model_id: str | None = None, oldest: int | None = None
) -> T:
    """Reads what `save_dataclass` wrote, of this version or down to `oldest`, whose missing fields have defaults.

    Raises FileNotFoundError if there is no such file and ValueError if it is not a safetensors file, of another format
    or version, made with another head model than `model_id`, or lacks a field.
    """
    metadata, tensors = read_safetensors(path)
    found = metadata.get(FORMAT_KEY, "none")
    if found != format:
        raise ValueError(f"{path} has format {found}, expected {format}; choose a file that was saved as {format}")
    if metadata.get("version") not in map(str, range(oldest or version, version + 1)):
        raise ValueError(
            f"{path} has version {metadata.get('version')} of {format}, this program reads version {version}; "
            f"save it again with a matching program"
        )
    if model_id is not None and metadata.get("model_id") != model_id:
        raise ValueError(
            f"{path} was made with head model {metadata.get('model_id')}, but {model_id} is loaded; load the matching head model"
        )
    values = tensors | json.loads(metadata["fields"])
    fields = dataclasses.fields(kind)
    required = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    missing = sorted(required - values.keys())
    if missing:
        raise ValueError(f"{path} lacks the field {missing[0]} of {format}; the file is damaged, save it again")
    known = {f.name for f in fields}
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in known})


def move_dataclass(value: T, device: torch.device | str) -> T:
    """The same dataclass with its tensors on `device`."""
    moved = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return dataclasses.replace(value, **{n: v.to(device) for n, v in moved.items() if isinstance(v, torch.Tensor)})
