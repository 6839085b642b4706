"""The archive that the registry would serve: complete, and free of what its scanners and users reject."""

from __future__ import annotations

import ast

FORBIDDEN_IMPORTS = {
    "aiohttp", "asyncio", "cloudpickle", "ctypes", "dill", "ftplib", "http", "httpx", "importlib", "joblib", "marshal", "pickle",
    "pip", "requests", "shelve", "smtplib", "socket", "socketserver", "subprocess", "telnetlib", "urllib", "webbrowser", "xmlrpc",
}  # fmt: skip
FORBIDDEN_CALLS = {
    "__import__", "compile", "eval", "exec", "os.execv", "os.popen", "os.spawnl", "os.startfile", "os.system",
    "torch.hub.load", "torch.load",
}  # fmt: skip
FORBIDDEN_ENDINGS = {".bat", ".bin", ".ckpt", ".dll", ".exe", ".pkl", ".pt", ".pth", ".sh", ".so", ".whl"}


def faults(source: str) -> list[str]:
    """What a scanner would flag in Python source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [f"from {node.module} import ..."] * (node.module.split(".")[0] in FORBIDDEN_IMPORTS)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS:
            found.append(f"{ast.unparse(node.func)}(...)")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append("allow_pickle")
    return found


def test_the_scanner_sees_what_it_must_see():
    for source in ("import subprocess", "from urllib import request", "eval('1')", "import torch\ntorch.load('x')", "f(allow_pickle=True)"):
        assert len(faults(source)) == 1, source
    assert faults("import torch\nmodel.eval()\nimport re\nre.compile('x')") == []


def test_shipped_python_is_clean(root, shipped_files):
    for path in shipped_files:
        if path.suffix == ".py":
            assert faults((root / path).read_text(encoding="utf-8")) == [], path


def test_archive_holds_what_it_needs_and_no_more(shipped_files):
    names = {path.as_posix() for path in shipped_files}
    assert {"__init__.py", "LICENSE", "README.md", "pyproject.toml", "nodes/__init__.py", "proxy/assets/head.npz"} <= names
    assert not {path.parts[0] for path in shipped_files} & {"tests", "tools", ".ci", ".git", ".venv", "run.py", "output"}
    assert not [name for name in names if any(name.endswith(ending) for ending in FORBIDDEN_ENDINGS)]


def test_archive_is_small(root, shipped_files):
    assert sum((root / path).stat().st_size for path in shipped_files) < 12e6


def test_comfyui_is_imported_in_nodes_only(root, shipped_files):
    for path in shipped_files:
        if path.suffix == ".py" and path.parts[0] != "nodes":
            for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
                assert not {m.split(".")[0] for m in modules} & {"comfy", "comfy_api", "folder_paths", "nodes", "server"}, path
