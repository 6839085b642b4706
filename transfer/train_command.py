"""The command `expportrait train-transfer`: makes the data, trains the network, measures it and writes it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from ..proxy.head_model import HeadModel
from ..proxy.head_proxy import HeadProxy
from .train import TrainSettings, evaluate, train_network
from .training_data import make_subjects, random_drivers

HELD_OUT, DRIVERS = 12, 192  # faces and expressions to measure on
Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `train_transfer` reads, besides the device and the head model."""
    parser.add_argument("--out", required=True, help="network file (.safetensors)")
    parser.add_argument("--identities", type=int, default=160, help="random faces to train on (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=TrainSettings.steps, help="steps of the optimiser (default: %(default)s)")
    parser.add_argument("--proxies", nargs="+", default=[], metavar="PROXY", help="refined proxies whose wrinkles are learned too")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: %(default)s)")
    parser.add_argument("--report", metavar="FILE", help="JSON file for the errors on faces it never saw (default: printed only)")


@torch.inference_mode(False)
def train_transfer(options: argparse.Namespace, model: HeadModel, bar: Bar) -> None:
    """Trains on random faces and refined proxies, measures on held-out faces and writes network and report.

    Raises ValueError for fewer than one identity or step, or a proxy that has nothing to teach.
    """
    if options.identities < 1:
        raise ValueError(f"--identities is {options.identities}; give at least 1")
    settings = TrainSettings(options.steps)
    generator = torch.Generator().manual_seed(options.seed)
    with torch.no_grad():
        proxies = tuple(HeadProxy.load(path, model.model_id).to(options.device) for path in options.proxies)
        with bar("faces") as progress:
            subjects = make_subjects(model, options.identities, generator, proxies, progress)
        with bar("held-out faces") as progress:
            held_out = make_subjects(model, HELD_OUT, generator, progress=progress)
    with bar("train") as progress:
        network = train_network(model, subjects, settings, generator, progress)
    network.save(options.out)
    report = {
        "model_id": model.model_id,
        "identities": options.identities,
        "proxies": len(proxies),
        "steps": options.steps,
        "seed": options.seed,
        "held_out_identities": HELD_OUT,
        "error_mm": evaluate(network, model, held_out, random_drivers(model, DRIVERS, generator)),
    }
    text = json.dumps(report, indent=2)
    if options.report:
        with open(options.report, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    print(text)
