"""Calibrates the landmarks of the embedded head, or of an SMPL-X file, and writes their table.

    python tools/make_landmark_table.py [SMPLX_NEUTRAL.npz] [--renders N] [--seed S]
"""

import argparse
import time

from expportrait.proxy.calibrate import calibrate_landmarks, landmarks_path, save_landmarks
from expportrait.proxy.head_asset import LANDMARKS
from expportrait.proxy.head_model import load_head_model
from expportrait.proxy.landmarks import load_landmarker
from tqdm import tqdm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="SMPL-X npz; the embedded head if left out")
    parser.add_argument("--renders", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = load_head_model(options.model)
    start = time.perf_counter()
    with tqdm(total=options.renders) as bar:
        table = calibrate_landmarks(
            model, load_landmarker(), options.renders, options.seed, lambda done, total: bar.update(done - bar.n)
        )
    path = LANDMARKS if options.model is None else landmarks_path(options.model)
    save_landmarks(path, table, model.model_id)
    print(f"{path}: {path.stat().st_size} bytes, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
