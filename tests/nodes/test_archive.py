"""The archive that the registry would serve: complete, and free of what its scanners and users reject."""

from __future__ import annotations

import ast
import re

import pytest
from PIL import Image

FORBIDDEN_IMPORTS = {
    "aiohttp", "asyncio", "cloudpickle", "ctypes", "dill", "ftplib", "http", "httpx", "importlib", "joblib", "marshal", "pickle",
    "pip", "requests", "shelve", "smtplib", "socket", "socketserver", "subprocess", "telnetlib", "urllib", "webbrowser", "xmlrpc",
}  # fmt: skip
FORBIDDEN_CALLS = {
    "__import__", "compile", "eval", "exec", "os.execv", "os.popen", "os.spawnl", "os.startfile", "os.system",
    "torch.hub.load", "torch.load",
}  # fmt: skip
FORBIDDEN_METHODS = (".bind", ".connect", ".send", ".sendall")
FORBIDDEN_TEXT = (".connect(", ".bind(", ".send(", "eval(", "Function(", "WebSocket", "XMLHttpRequest", "importScripts")  # scripts and data
DATA = (".jpg", ".json", ".npz", ".png", ".safetensors")
LARGEST_FILE, LARGEST_ARCHIVE = 50e6, 60e6  # bytes; the pocket model may bring up to 40 MB
FORBIDDEN_ENDINGS = {".bat", ".bin", ".ckpt", ".dll", ".exe", ".pkl", ".pt", ".pth", ".sh", ".so", ".whl"}


def faults(source: str) -> list[str]:
    """What a scanner would flag in Python source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [f"from {node.module} import ..."] * (node.module.split(".")[0] in FORBIDDEN_IMPORTS)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [f"{called}(...)"] * (called in FORBIDDEN_CALLS or called.endswith(FORBIDDEN_METHODS))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append("allow_pickle")
    return found


def test_the_scanner_sees_what_it_must_see():
    sources = ("import subprocess", "from urllib import request", "eval('1')", "import torch\ntorch.load('x')", "f(allow_pickle=True)")
    for source in (*sources, "a.connect(b)"):
        assert len(faults(source)) == 1, source
    assert faults("import torch\nmodel.eval()\nimport re\nre.compile('x')") == []


def test_shipped_python_is_clean(root, shipped_files):
    for path in shipped_files:
        if path.suffix == ".py":
            assert faults((root / path).read_text(encoding="utf-8")) == [], path


def test_archive_holds_what_it_needs_and_no_more(shipped_files):
    names = {path.as_posix() for path in shipped_files}
    assert {"__init__.py", "LICENSE", "README.md", "pyproject.toml", "nodes/__init__.py", "proxy/assets/head.npz"} <= names
    assert {"locales/zh/nodeDefs.json", "web/icon.png", "workflows/portrait_and_clip_to_preview.json"} <= names
    assert not {path.parts[0] for path in shipped_files} & {"tests", "tools", ".ci", ".git", ".venv", "run.py", "output"}
    assert not [name for name in names if any(name.endswith(ending) for ending in FORBIDDEN_ENDINGS)]


def test_scripts_and_data_hold_nothing_that_scanners_flag(root, shipped_files):
    for path in shipped_files:
        if path.suffix in (".js", ".json", ".md", ".txt", ".toml"):
            text = (root / path).read_text(encoding="utf-8")
            assert [word for word in FORBIDDEN_TEXT if word in text] == [], path


def test_scripts_ask_the_local_server_only(root, shipped_files):
    scripts = [path for path in shipped_files if path.suffix == ".js"]
    assert {path.parts[:2] for path in scripts} == {("web", "js")}
    for path in scripts:
        text = (root / path).read_text(encoding="utf-8")
        assert "://" not in text.replace("http://www.w3.org/", ""), path
        imports = re.findall(r'from "([^"]+)"', text)
        assert all(re.match(r"(\.\./\.\./\.\.)?/scripts/|\./", name) for name in imports), path


def test_archive_is_small(root, shipped_files):
    sizes = {path: (root / path).stat().st_size for path in shipped_files}
    assert max(sizes.values()) < LARGEST_FILE
    assert sum(sizes.values()) < LARGEST_ARCHIVE


def test_all_data_tells_its_licence(root, shipped_files):
    """Data lies in an assets folder with a README that names each file and the licences, or is drawn or written by us."""
    assert (root / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")
    ours = ("locales", "web", "workflows")
    for path in shipped_files:
        if path.suffix in DATA and path.parts[0] not in ours and path.parent.name not in ("presets", "transfer"):
            readme = (root / path.parent / "README.md").read_text(encoding="utf-8")
            assert path.parent.name == "assets" and path.name in readme, path
            assert re.search("Apache-2.0|CC0|MIT", readme), path


def test_icon_and_banner_are_as_the_registry_wants_them(root, shipped_files):
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    comfy = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["comfy"]
    for name, fits in (("Icon", lambda w, h: w == h <= 400), ("Banner", lambda w, h: 9 * w == 21 * h)):
        (path,) = (path for path in shipped_files if comfy[name].endswith(path.as_posix()))
        with Image.open(root / path) as image:
            assert fits(*image.size), name


def test_comfyui_is_imported_in_nodes_only(root, shipped_files):
    for path in shipped_files:
        if path.suffix == ".py" and path.parts[0] != "nodes":
            for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
                assert not {m.split(".")[0] for m in modules} & {"comfy", "comfy_api", "folder_paths", "nodes", "server"}, path
