import numpy as np
import pytest
import torch

from expportrait.transfer.timecode import codes_of, even_frames, frame_rate, seconds_of


@pytest.mark.parametrize("fps", [12.0, 24.0, 25.0, 29.97, 30.0, 59.94, 60.0, 5.0])
def test_codes_tell_their_rate(fps):
    codes = codes_of(200, fps)
    assert codes[0] == "00:00:00:00.000" and all(len(code) == 15 for code in codes)
    times = seconds_of(codes)
    np.testing.assert_allclose(times, np.arange(200) / fps, atol=1e-4)
    assert frame_rate(times) == fps


def test_rows_may_come_slower_than_the_timecode_counts():
    # As a phone writes them: thirty rows a second, counted by sixty, the first row twice.
    codes = ["12:27:58:57.170", "12:27:58:57.170", "12:27:58:59.169", "12:27:59:01.169", "12:27:59:03.168"]
    times = seconds_of(codes)
    np.testing.assert_allclose(np.diff(times), [0, 2 / 60, 2 / 60, 2 / 60], atol=1e-4)
    assert frame_rate(times) == 30.0


def test_clock_times_and_midnight():
    np.testing.assert_allclose(seconds_of(["00:00:01.5", "00:01:02.25"]), [1.5, 62.25])
    times = seconds_of(["23:59:59:28.000", "23:59:59:29.000", "00:00:00:00.000", "00:00:00:01.000"])
    np.testing.assert_allclose(np.diff(times), 1 / 30, atol=1e-9)


@pytest.mark.parametrize(
    "codes",
    [
        ["1", "2", "3"],
        ["00:00:00:00.000"],
        ["00:00:00:00.000", "00:00:00:01.000"],  # one second only: counted by what?
        ["00:00:00:00.000", "00:00:01:00.000", "00:00:02:00.000"],
        ["00:00:00:00.000", "00:00:00:33.000", "00:00:00:966.000", "00:00:01:00.000"],
    ],
)
def test_what_does_not_tell_a_rate(codes):
    times = seconds_of(codes)
    assert times is None or frame_rate(times) is None


def test_gaps_are_left_out_of_the_rate_and_filled():
    times = np.delete(np.arange(100) / 25, slice(30, 35))
    assert frame_rate(times) == 25.0
    values = np.stack([times, 3 - times], 1)
    even = even_frames(times, values, 25.0)
    np.testing.assert_allclose(even[:, 0], np.arange(100) / 25, atol=1e-9)
    assert frame_rate(np.array([0.0, 0.1, 0.05])) is None and frame_rate(np.zeros(4)) is None


def test_even_frames_are_left_as_they_are(generator):
    times = np.arange(50) / 30 + 0.001 * torch.rand(50, generator=generator).numpy()
    values = torch.rand(50, 3, generator=generator).numpy()
    assert np.array_equal(even_frames(times, values, 30.0), values)
    repeated = even_frames(np.insert(times, 0, times[0]), np.insert(values, 0, values[0], 0), 30.0)
    assert np.array_equal(repeated, values)
