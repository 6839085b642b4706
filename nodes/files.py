"""Files that nodes load and save: only below ComfyUI's input and output folders, whatever a workflow asks for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import folder_paths


def saved_files(*endings: str) -> list[str]:
    """Names of the files with these endings (safetensors if none is given) in the output and input folders and their direct
    sub-folders, for a combo."""
    names = []
    for kind, folder in (("output", folder_paths.get_output_directory()), ("input", folder_paths.get_input_directory())):
        patterns = [f"{place}*.{ending}" for ending in endings or ("safetensors",) for place in ("", "*/")]
        found = [path for pattern in patterns for path in Path(folder).glob(pattern)]
        names += [f"{path.relative_to(folder).as_posix()} [{kind}]" for path in sorted(found)]
    return names


def saved_file(name: str) -> str:
    """The path behind a name of `saved_files`.

    Raises ValueError if it leads out of ComfyUI's folders and FileNotFoundError if there is no such file.
    """
    path = os.path.abspath(folder_paths.get_annotated_filepath(name))
    allowed = (folder_paths.get_output_directory(), folder_paths.get_input_directory())
    if not any(Path(path).is_relative_to(os.path.abspath(folder)) for folder in allowed):
        raise ValueError(f"{name} lies outside ComfyUI's input and output folders; choose a file from the list")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{name} does not exist; choose a file from the list (press R to refresh it)")
    return path


def check_saved_file(name: str) -> bool | str:
    """For `validate_inputs`: True, or what is wrong with the name."""
    try:
        saved_file(name)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return True


def fingerprint(name: str) -> str:
    """Hash of the file's content, so that a node runs again when the file changed and only then."""
    return hashlib.sha256(Path(saved_file(name)).read_bytes()).hexdigest()


def new_file(prefix: str, suffix: str) -> tuple[str, str]:
    """A free numbered path in the output folder, and the same relative to it, with forward slashes."""
    folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    name = f"{stem}_{counter:05}_{suffix}"
    return os.path.join(folder, name), Path(subfolder, name).as_posix()
