"""Measures the bars of a stage and prints them as one JSON object; exits 1 if one is not met.

    python tools/bench.py landmarks|fit|raster|render|memory|demo|refine|transfer|dit|learning|comfy [--data ../shared/data]

Run it with the environment that run.py makes. Times are ratios or CPU times of one run on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("EXPPORTRAIT_DATA", ROOT.parent / "shared" / "data"))


def _landmarks(data: Path) -> list[dict]:
    from bench_landmarks import landmark_bars

    return landmark_bars(data)


def _fit(data: Path) -> list[dict]:
    from bench_fit import fit_bars

    return fit_bars(data)


def _raster(data: Path) -> list[dict]:
    from bench_raster import raster_bars

    return raster_bars()


def _render(data: Path) -> list[dict]:
    from bench_render import render_bars

    return render_bars(data)


def _memory(data: Path) -> list[dict]:
    from bench_memory import memory_bars

    return memory_bars(data)


def _demo(data: Path) -> list[dict]:
    from bench_demo import demo_bars

    return demo_bars()


def _refine(data: Path) -> list[dict]:
    from bench_refine import refine_bars

    return refine_bars(data)


def _transfer(data: Path) -> list[dict]:
    from bench_transfer import transfer_bars

    return transfer_bars(data)


def _dit(data: Path) -> list[dict]:
    from bench_dit import dit_bars

    return dit_bars(data)


def _learning(data: Path) -> list[dict]:
    from bench_dit_learning import FOLDER, learning_bars

    return learning_bars(FOLDER)


def _comfy(data: Path) -> list[dict]:
    from bench_comfy import import_bars

    return import_bars()


STAGES = {
    "landmarks": _landmarks,
    "fit": _fit,
    "raster": _raster,
    "render": _render,
    "memory": _memory,
    "demo": _demo,
    "refine": _refine,
    "transfer": _transfer,
    "dit": _dit,
    "learning": _learning,
    "comfy": _comfy,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with clips/, portraits/ and heads/")
    options = parser.parse_args()
    if options.stage not in ("raster", "demo", "learning", "comfy") and not (options.data / "clips").is_dir():
        parser.error(f"there are no test clips in {options.data / 'clips'}; name the folder of the shared data with --data")
    bars = STAGES[options.stage](options.data)
    print(json.dumps({"stage": options.stage, "bars": bars}, indent=1))
    return 0 if all(bar["ok"] for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
