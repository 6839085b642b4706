"""The command `expportrait train-pocket`: makes training data, trains the pocket model, and exports it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors.torch import load_file

from ...proxy.head_model import HeadModel
from ..expression_code import code_size
from .data import Examples, make_data
from .model import PocketConfig
from .train import CHECKPOINT, PocketTrainSettings, Trainer, read_run, train_run
from .weights import load_model, save_model

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
SIZES = {"small": PocketConfig.small, "full": PocketConfig}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands `data`, `train` and `export` that `train_pocket` reads, besides the device and the head model."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="make examples of random people; a stopped run goes on where it was")
    data.add_argument("--out", required=True, help="folder for the examples")
    data.add_argument("--people", type=int, default=1200, help="how many (default: %(default)s)")
    data.add_argument("--frames", type=int, default=6, help="poses of each (default: %(default)s)")
    data.add_argument("--size", type=int, default=256, help="side of the pictures in pixels (default: %(default)s)")
    data.add_argument("--seed", type=int, default=0, help="two seeds share no person (default: %(default)s)")
    data.add_argument("--in-motion", action="store_true", help="the frames of each person are a clip, for attention over time")
    data.set_defaults(part=_data)

    train = commands.add_parser("train", help="train on examples; the same command again goes on where it was stopped")
    train.add_argument("--data", required=True, help="folder of examples")
    train.add_argument("--held-out", required=True, help="folder of examples of another seed, to look at and measure on")
    train.add_argument("--run", required=True, help="folder for checkpoint, log and pictures", dest="folder")
    train.add_argument("--steps", type=int, required=True, help="of the whole run")
    train.add_argument("--model", choices=SIZES, default="small", help="how large (default: %(default)s)")
    train.add_argument("--start", metavar="FILE", help="exported model to begin with")
    train.add_argument("--batch", type=int, default=PocketTrainSettings.batch, help="examples in a step (default: %(default)s)")
    train.add_argument("--size", type=int, default=PocketTrainSettings.side, help="side in pixels (default: %(default)s)")
    train.add_argument("--rate", type=float, default=PocketTrainSettings.rate, help="highest learning rate (default: %(default)s)")
    train.add_argument("--frames", type=int, default=1, help="above 1: add attention over this many frames and train it alone")
    train.add_argument("--seed", type=int, default=0, help="of all random numbers (default: %(default)s)")
    train.add_argument("--minutes", type=float, help="stop after this time, to go on later")
    train.add_argument("--save-every", type=float, default=5.0, metavar="MINUTES", help="between checkpoints (default: %(default)s)")
    train.add_argument("--look-every", type=int, default=500, metavar="STEPS", help="between lines of the log (default: %(default)s)")
    train.set_defaults(part=_train)

    export = commands.add_parser("export", help="write the running mean of a run's weights as a model")
    export.add_argument("--run", required=True, help="folder of the run", dest="folder")
    export.add_argument("--out", required=True, help="model file (.safetensors)")
    export.set_defaults(part=_export)


def train_pocket(options: argparse.Namespace, model: HeadModel, bar: Bar) -> None:
    """Runs one of the three commands. Raises ValueError or FileNotFoundError, in one sentence, for bad input."""
    options.part(options, model, bar)


def _data(options: argparse.Namespace, model: HeadModel, bar: Bar) -> None:
    with bar("people") as progress:
        make_data(options.out, model, options.people, options.frames, options.size, options.seed, options.in_motion, progress)


def _train(options: argparse.Namespace, model: HeadModel, bar: Bar) -> None:
    examples, held_out = (Examples(folder, model.model_id) for folder in (options.data, options.held_out))
    config = SIZES[options.model](model.model_id, code_size(model), temporal=options.frames > 1)
    settings = PocketTrainSettings(options.steps, options.batch, options.size, options.rate, options.frames, options.seed)
    start = None if options.start is None else load_model(options.start, model.model_id)
    trainer = Trainer(config, settings, examples, start)
    with bar("train") as progress:
        train_run(options.folder, trainer, held_out, options.minutes, options.save_every, options.look_every, progress)


def _export(options: argparse.Namespace, model: HeadModel, bar: Bar) -> None:
    checkpoint = Path(options.folder) / CHECKPOINT
    _, config, _ = read_run(checkpoint)
    weights = {name.removeprefix("mean."): value for name, value in load_file(checkpoint).items() if name.startswith("mean.")}
    save_model(options.out, config, weights, torch.bfloat16)
