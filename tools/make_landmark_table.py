"""Calibrates the landmarks of the embedded head, or of an SMPL-X file, and writes their table.

    python tools/make_landmark_table.py [SMPLX_NEUTRAL.npz] [--renders N] [--seed S] [--person PHOTO [PHOTO ...]] ...

Each --person names photos of one more person, with one face each: they better the table, see landmark_photos.py.
"""

import argparse
import time

from landmark_photos import refine_table
from tqdm import tqdm

from expportrait.proxy.calibrate import calibrate_landmarks, landmarks_path, save_landmarks
from expportrait.proxy.frames import Frames, read_image
from expportrait.proxy.head_asset import LANDMARKS
from expportrait.proxy.head_model import load_head_model
from expportrait.proxy.landmarks import FaceLandmarks, Landmarker, load_landmarker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="SMPL-X npz; the embedded head if left out")
    parser.add_argument("--renders", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--person", nargs="+", action="append", default=[], metavar="PHOTO")
    options = parser.parse_args()
    model, landmarker = load_head_model(options.model), load_landmarker()
    start = time.perf_counter()
    with tqdm(total=options.renders) as bar:
        table = calibrate_landmarks(model, landmarker, options.renders, options.seed, lambda done, total: bar.update(done - bar.n))
    if options.person:
        table = refine_table(model, table, [_detected(photos, landmarker) for photos in options.person])
    path = LANDMARKS if options.model is None else landmarks_path(options.model)
    save_landmarks(path, table, model.model_id)
    print(f"{path}: {path.stat().st_size} bytes, {time.perf_counter() - start:.0f} s")


def _detected(photos: list[str], landmarker: Landmarker) -> list[FaceLandmarks]:
    """Landmarks of every photo and of its mirror image."""
    found = []
    for path in photos:
        image = read_image(path)
        found += [landmarker.track(Frames.from_images(side[None])) for side in (image, image.flip(1))]
    return found


if __name__ == "__main__":
    main()
