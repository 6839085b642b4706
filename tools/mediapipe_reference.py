"""Runs the mediapipe package itself, for comparison. Called by tools/bench_landmarks.py in an environment of its own.

    python mediapipe_reference.py points IN.npz OUT.npz     images -> crops as MediaPipe cuts them, and its 478 points on them
    python mediapipe_reference.py time IN.npz OUT.npz       images -> wall and CPU seconds per image while tracking

Imports nothing of this project.
"""

from __future__ import annotations

import sys
import time

import cv2
import mediapipe as mp
import numpy as np
from mediapipe.python.solution_base import SolutionBase

GRAPH = "mediapipe/modules/face_landmark/face_landmark_front_cpu.binarypb"
CROP = 192
ROUNDS = 60


def reference_points(image: np.ndarray, graph: SolutionBase) -> tuple[np.ndarray, np.ndarray] | None:
    """The crop [192, 192, 3] uint8 on which MediaPipe runs its mesh, and its points [478, 3] in pixels of that crop."""
    height, width = image.shape[:2]
    result = graph.process({"image": image})
    if not result.multi_face_landmarks:
        return None
    rect = result.face_rects_from_detections[0]
    centre, size = (rect.x_center * width, rect.y_center * height), (rect.width * width, rect.height * height)
    corners = cv2.boxPoints((centre, size, np.degrees(rect.rotation))).astype(np.float32)
    to_crop = cv2.getPerspectiveTransform(corners, np.float32([[0, CROP], [0, 0], [CROP, 0], [CROP, CROP]]))
    crop = cv2.warpPerspective(image, to_crop, (CROP, CROP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    found = np.array([(p.x * width, p.y * height, p.z * width) for p in result.multi_face_landmarks[0].landmark])
    points = cv2.perspectiveTransform(found[None, :, :2], to_crop)[0]
    return crop, np.concatenate([points, found[:, 2:] * CROP / size[0]], 1)


def main() -> None:
    task, source, target = sys.argv[1:]
    images = np.load(source)
    results = {}
    if task == "points":
        graph = SolutionBase(
            binary_graph_path=GRAPH,
            side_inputs={"num_faces": 1, "with_attention": True, "use_prev_landmarks": False},
            outputs=["multi_face_landmarks", "face_rects_from_detections"],
        )
        for name in images.files:
            found = reference_points(images[name], graph)
            if found is not None:
                results[f"{name}.crop"], results[f"{name}.points"] = found
    else:
        mesh = mp.solutions.face_mesh.FaceMesh(static_image_mode=False, refine_landmarks=True)
        image = images[images.files[0]]
        wall, cpu = [], []
        for _ in range(ROUNDS):
            start = time.perf_counter(), time.process_time()
            if not mesh.process(image).multi_face_landmarks:
                raise SystemExit("MediaPipe lost the face, so its time means nothing")
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
        results["wall"], results["cpu"] = np.array(wall[ROUNDS // 6 :]), np.array(cpu[ROUNDS // 6 :])
    np.savez_compressed(target, **results)


if __name__ == "__main__":
    main()
