"""Makes tests/proxy/data/mediapipe_points.npz: crops that MediaPipe cuts from scikit-image's astronaut, and its points on them.

    python tools/make_landmark_reference.py

Runs the mediapipe package in its own environment, see tools/bench_landmarks.py. The astronaut is a NASA picture in the public domain.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bench_landmarks import reference
from skimage.data import astronaut
from skimage.transform import rotate

TARGET = Path(__file__).parents[1] / "tests/proxy/data/mediapipe_points.npz"


def main() -> None:
    image = astronaut()
    turned = np.round(rotate(image, 25, mode="edge") * 255).astype(np.uint8)
    images = {"whole": image, "mirrored": np.ascontiguousarray(image[:, ::-1]), "turned": turned}
    found = reference("points", images)
    crops = np.stack([found[f"{name}.crop"] for name in images])
    points = np.stack([found[f"{name}.points"] for name in images]).astype(np.float32)
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, crops=crops, points=points)
    print(f"{TARGET}: {TARGET.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
