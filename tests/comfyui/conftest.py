"""A real ComfyUI with the pack's archive in it, on a loopback port, and its page in headless Chromium.

Needs the environment variable COMFYUI_PATH (a checkout of ComfyUI) and an interpreter that can run it: COMFYUI_PYTHON, or the
one that runs the tests. The page needs Chromium and the package playwright. Frames come from the shared data or are
rendered here, by the installed package.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from expportrait.cli import PORTRAIT, main
from expportrait.proxy.frames import Frames, VideoWriter

PACK = "ComfyUI-ExpPortrait"
CLIP_FRAMES = 24
DATA = Path(os.environ.get("EXPPORTRAIT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
READY = "window.app?.extensionManager && window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 100"


@dataclasses.dataclass
class Server:
    """A running ComfyUI; `base` holds its input, output, models and user folders."""

    base: Path
    port: int
    process: subprocess.Popen

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text(encoding="utf-8", errors="replace")

    def fetch(self, path: str, body: dict | None = None) -> tuple[int, bytes]:
        """Status and content of a GET, or of a POST of `body` as JSON."""
        request = urllib.request.Request(self.url + path, None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def get(self, path: str):
        status, content = self.fetch(path)
        assert status == 200, f"{path}: {status} {content[:500]}"
        return json.loads(content)

    def queue(self, graph: dict) -> str:
        """Queues an API graph that has to pass validation; returns the prompt's id."""
        status, content = self.fetch("/prompt", {"prompt": graph, "client_id": uuid.uuid4().hex})
        assert status == 200, json.dumps(json.loads(content), indent=1)[:4000]
        return json.loads(content)["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 300) -> dict:
        """The history entry of a prompt, once it is through."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log[-4000:]
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                return entry
            time.sleep(0.1)
        raise AssertionError(f"no result within {seconds} s\n{self.log[-4000:]}")

    def run(self, graph: dict, seconds: float = 300) -> dict:
        """Outputs of an API graph that has to run to its end: {node id: {kind: [...]}}."""
        entry = self.wait(self.queue(graph), seconds)
        assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)[-4000:]
        return entry["outputs"]

    def failure(self, graph: dict, seconds: float = 120) -> dict:
        """The `execution_error` message of an API graph that has to fail."""
        status = self.wait(self.queue(graph), seconds)["status"]
        errors = [data for kind, data in status["messages"] if kind == "execution_error"]
        assert len(errors) == 1, status
        return errors[0]

    def saved(self, outputs: dict, kind: str = "images") -> list[Path]:
        """Files in the output folder that the outputs of a run name; what nodes show on themselves is not among them."""
        items = [item for output in outputs.values() for item in output.get(kind, []) if item["type"] == "output"]
        return [self.base / item["type"] / item["subfolder"] / item["filename"] for item in items]


@pytest.fixture(scope="session")
def comfyui(root: Path, shipped_files: list[Path], tmp_path_factory) -> Iterator[Server]:
    core = os.environ.get("COMFYUI_PATH")
    if not core:
        pytest.skip("COMFYUI_PATH names no checkout of ComfyUI")
    base = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "input", "models", "output", "temp", "user/default"):
        (base / name).mkdir(parents=True)
    (base / "user/default/comfy.settings.json").write_text('{"Comfy.TutorialCompleted": true}')
    with zipfile.ZipFile(base / "archive.zip", "w") as archive:
        for path in shipped_files:
            archive.write(root / path, path)
    with zipfile.ZipFile(base / "archive.zip") as archive:
        archive.extractall(base / "custom_nodes" / PACK)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        os.environ.get("COMFYUI_PYTHON", sys.executable), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port),
        "--disable-auto-launch", "--disable-api-nodes", "--base-directory", str(base),
        "--database-url", f"sqlite:///{base}/user/comfyui.db",
    ]  # fmt: skip
    with open(base / "server.log", "wb") as log:
        process = subprocess.Popen(command, cwd=core, stdout=log, stderr=subprocess.STDOUT)
    server = Server(base, port, process)
    try:
        for _ in range(1500):
            assert process.poll() is None, server.log[-4000:]
            try:
                server.get("/system_stats")
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise AssertionError(f"ComfyUI did not come up\n{server.log[-4000:]}")
        yield server
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def page(comfyui: Server, browser):
    """ComfyUI's page, ready; a failure of the page's own code is kept in `page.errors`; `page.ready()` waits after a reload."""
    page = browser.new_page(viewport={"width": 1800, "height": 1000})
    page.set_default_navigation_timeout(180_000)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.ready = lambda: page.wait_for_function(READY, timeout=180_000)
    page.goto(comfyui.url)
    page.ready()
    yield page
    page.close()


@pytest.fixture(scope="session")
def shots(root: Path) -> Path:
    """Folder for screenshots, which stay to be looked at."""
    folder = root / "output/screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM)
        yield browser
        browser.close()


@dataclasses.dataclass
class Media:
    """A portrait and a short clip in ComfyUI's input folder."""

    portrait: str
    portrait_size: tuple[int, int]
    clip: str
    size: tuple[int, int]
    frames: int
    fps: float


@pytest.fixture(scope="session")
def media(comfyui: Server, tmp_path_factory) -> Media:
    """A painting and a real performer from the shared data, or the pack's own portrait and what the pack makes of it."""
    portrait, clip = DATA / "portraits/s9.jpg", DATA / "clips/d19.mp4"
    if not DATA.is_dir():
        portrait, clip = PORTRAIT, tmp_path_factory.mktemp("clip") / "speaking.mp4"
        assert main(["animate", "--source", str(portrait), "--driver", "preset:speaking", "--out", str(clip)]) == 0
    shutil.copy(portrait, comfyui.base / "input/portrait.jpg")
    picture, frames = Frames.open(portrait), Frames.open(clip)
    images = next(frames.chunks(CLIP_FRAMES))
    with VideoWriter(comfyui.base / "input/clip.mp4", frames.fps) as writer:
        writer.write(images.permute(0, 2, 3, 1))
    size = (frames.width, frames.height)
    return Media("portrait.jpg", (picture.width, picture.height), "clip.mp4", size, len(images), frames.fps)
