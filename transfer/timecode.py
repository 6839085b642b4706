"""Frame times of recordings: timecodes of Live Link Face to seconds and back, and the frame rate that times tell."""

from __future__ import annotations

import re

import numpy as np

CODE = re.compile(r"(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)")
CLOCK = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
DAY = 86400
USUAL_RATES = (23.976, 24, 25, 29.97, 30, 48, 50, 59.94, 60, 90, 100, 119.88, 120)
USUAL_WITHIN = 0.002  # relative: a measured rate this close to a usual one is that one
SLOWEST, FASTEST = 10, 240  # frames per second that a timecode may count by


def seconds_of(codes: list[str]) -> np.ndarray | None:
    """Seconds [T] of timecodes `hh:mm:ss:ff.fff` or clock times `hh:mm:ss.sss`; None if they do not tell.

    A timecode does not say how many frames it counts in a second. That follows from how far the frames have counted on when a
    second begins, so a recording within one second tells nothing. Past midnight time goes on.
    """
    clock = [CLOCK.fullmatch(code.strip()) for code in codes]
    if all(clock):
        return _past_midnight(np.array([3600 * int(m[1]) + 60 * int(m[2]) + float(m[3]) for m in clock]))
    matches = [CODE.fullmatch(code.strip()) for code in codes]
    if not all(matches):
        return None
    second = _past_midnight(np.array([3600.0 * int(m[1]) + 60 * int(m[2]) + int(m[3]) for m in matches]))
    frame = np.array([float(m[4]) for m in matches])
    second_step, frame_step = np.diff(second), np.diff(frame)
    within, across = (second_step == 0) & (frame_step > 0), second_step == 1
    if not (within.any() and across.any()):
        return None
    counted = round(float(np.median(np.median(frame_step[within]) - frame_step[across])))
    if not (SLOWEST <= counted <= FASTEST) or frame.max() > counted:
        return None
    return second + frame / counted


def codes_of(count: int, fps: float) -> list[str]:
    """Timecodes of `count` frames from 0 on, as Live Link Face writes them."""
    counted = round(fps) if fps >= SLOWEST else 60
    codes = []
    for index in range(count):
        thousandths = round(1000 * counted * index / fps)
        whole, part = divmod(thousandths, 1000 * counted)
        codes.append(f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}:{part / 1000:06.3f}")
    return codes


def frame_rate(times: np.ndarray) -> float | None:
    """Frames per second of times [T] in seconds, leaving out gaps; None if they do not go forward."""
    steps = np.diff(times)
    if len(steps) == 0 or (steps < 0).any() or not (steps > 0).any():
        return None
    steps = steps[steps > 0]
    rate = 1 / steps[steps < 1.5 * np.median(steps)].mean()
    usual = min(USUAL_RATES, key=lambda known: abs(known - rate))
    return float(usual) if abs(usual - rate) < USUAL_WITHIN * rate else float(round(rate, 3))


def even_frames(times: np.ndarray, values: np.ndarray, fps: float) -> np.ndarray:
    """Values [T, N] at times [T] as evenly spaced frames [T', N]: repeated times count once, and where frames are missing or late
    by more than half a frame all are interpolated in time."""
    keep = np.concatenate([[True], np.diff(times) > 0])
    times, values = times[keep] - times[0], values[keep]
    if np.abs(times - np.arange(len(times)) / fps).max() <= 0.5 / fps:
        return values
    grid = np.arange(round(times[-1] * fps) + 1) / fps
    return np.stack([np.interp(grid, times, column) for column in values.T], 1)


def _past_midnight(seconds: np.ndarray) -> np.ndarray:
    return seconds + DAY * np.concatenate([[0], np.cumsum(np.diff(seconds) < -DAY / 2)])
