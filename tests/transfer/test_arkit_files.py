import csv
import dataclasses
import json
import math

import pytest
import torch

from expportrait.transfer.arkit_bridge import ARKIT_NAMES
from expportrait.transfer.arkit_curves import ArkitCurves
from expportrait.transfer.arkit_files import LIVE_LINK_NAMES, read_arkit, write_arkit


@pytest.fixture
def arkit(generator) -> ArkitCurves:
    return ArkitCurves(
        curves=torch.rand(40, 52, generator=generator),
        fps=25.0,
        head=0.4 * torch.randn(40, 3, generator=generator),
        eyes=0.2 * torch.randn(40, 2, 3, generator=generator),
    )


def csv_file(path, header: str, *rows: str):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def index(name: str) -> int:
    return ARKIT_NAMES.index(name)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "A.CSV"])
def test_files_lead_back_to_the_same_curves(arkit, tmp_path, name):
    write_arkit(tmp_path / name, arkit)
    again = read_arkit(tmp_path / name)
    assert again.fps == arkit.fps and again.valid.all()
    torch.testing.assert_close(again.curves, arkit.curves, atol=1e-7, rtol=0)
    torch.testing.assert_close(again.head, arkit.head, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.eyes, arkit.eyes, atol=1e-6, rtol=0)
    write_arkit(tmp_path / ("again" + name), again)
    numbers = [(tmp_path / n).read_text() for n in (name, "again" + name)]
    assert len(numbers[0]) == pytest.approx(len(numbers[1]), rel=0.01)


def test_csv_has_the_columns_of_live_link_face(arkit, tmp_path):
    write_arkit(tmp_path / "a.csv", dataclasses.replace(arkit, head=None))
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft", "EyeLookDownLeft"]
    assert list(rows[0])[-10:-6] == ["TongueOut", "HeadYaw", "HeadPitch", "HeadRoll"] and len(rows[0]) == 63
    assert {row["BlendShapeCount"] for row in rows} == {"61"} and rows[26]["Timecode"] == "00:00:01:01.000"
    assert float(rows[7]["JawOpen"]) == pytest.approx(float(arkit.curves[7, index("jawOpen")]), abs=1e-9)
    assert read_arkit(tmp_path / "a.csv").head is None
    assert sorted(name.lower() for name in LIVE_LINK_NAMES) == sorted(name.lower() for name in ARKIT_NAMES)


def test_angles_turn_the_head_as_unreal_means_them(tmp_path):
    path = csv_file(tmp_path / "a.csv", "JawOpen,HeadYaw,HeadPitch,HeadRoll", "0,0.3,0,0", "0,0,0.2,0", "0,0,0,0.1")
    head = read_arkit(path, fps=30).head
    # To the subject's right, down, and towards the subject's left shoulder.
    torch.testing.assert_close(head, torch.tensor([[0, -0.3, 0], [0.2, 0, 0], [0, 0, -0.1]]), atol=1e-6, rtol=0)
    assert read_arkit(path, fps=30).eyes is None


def test_header_in_any_order_and_spelling(tmp_path):
    header = "frame, jawOpen ,EYEBLINKLEFT,mouth_smile_right,mouthSmile_L"
    path = csv_file(tmp_path / "a.csv", header, "0,0.1,0.2,0.3,0.4", "1,0.5,0.6,0.7,0.8", "")
    with pytest.warns(UserWarning, match="no ARKit curves and are ignored: frame$"):
        arkit = read_arkit(path, fps=24)
    names = ["jawOpen", "eyeBlinkLeft", "mouthSmileRight", "mouthSmileLeft"]
    torch.testing.assert_close(arkit.curves[:, [index(n) for n in names]], torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]))
    assert arkit.curves.sum() == pytest.approx(3.6) and arkit.fps == 24.0  # what is missing is 0
    assert arkit.head is None and arkit.eyes is None


def test_frames_without_a_face_are_filled_and_told(tmp_path):
    rows = [f"00:00:0{k // 4}:{10 * (k % 4):02}.000,1,{0.1 * k}" for k in range(9)]
    rows[3], rows[4] = (row.rsplit(",", 2)[0] + ",0" for row in rows[3:5])
    arkit = read_arkit(csv_file(tmp_path / "a.csv", "Timecode,BlendShapeCount,JawOpen", *rows))
    torch.testing.assert_close(arkit.curves[:, index("jawOpen")], 0.1 * torch.arange(9))
    assert arkit.valid.tolist() == [True] * 3 + [False] * 2 + [True] * 4


def test_lost_frames_are_interpolated_but_not_where_the_rate_is_given(tmp_path):
    rows = [f"00:00:0{k // 30}:{k % 30:02}.000,{k / 60}" for k in range(60) if not 20 <= k < 25]
    path = csv_file(tmp_path / "a.csv", "Timecode,JawOpen", *rows)
    arkit = read_arkit(path)
    assert arkit.fps == 30 and len(arkit) == 60
    torch.testing.assert_close(arkit.curves[:, index("jawOpen")], torch.arange(60) / 60)
    assert len(read_arkit(path, fps=30)) == 55


JSON = [
    {"fps": 20, "names": ["jawOpen", "eyeBlinkLeft"], "frames": [[0.1, 0.2], [0.3, 0.4]]},
    {"exportFps": 20, "trackPath": "a.wav", "numPoses": 2, "facsNames": ["jawOpen", "EyeBlinkLeft"], "weightMat": [[0.1, 0.2], [0.3, 0.4]]},
    {"names": ["jawOpen", "eyeBlinkLeft"], "frames": [{"weights": [0.1, 0.2], "time": 0}, {"weights": [0.3, 0.4], "time": 0.05}]},
    {"metadata": {"fps": 20}, "names": ["jawOpen", "eyeBlinkLeft"], "frames": [{"weights": [0.1, 0.2]}, {"weights": [0.3, 0.4]}]},
    [{"time": 1.0, "blendshapes": {"jawOpen": 0.1, "eyeBlinkLeft": 0.2}}, {"time": 1.05, "weights": {"eyeBlinkLeft": 0.4, "jawOpen": 0.3}}],
    {"frames": [{"timeCode": t, "blendShapes": {"JawOpen": a, "EyeBlinkLeft": b}} for t, a, b in ((0, 0.1, 0.2), (0.05, 0.3, 0.4))]},
]  # fmt: skip


@pytest.mark.parametrize("content", JSON)
def test_json_layouts(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    arkit = read_arkit(path)
    assert arkit.fps == 20.0
    torch.testing.assert_close(arkit.curves[:, [index("jawOpen"), index("eyeBlinkLeft")]], torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
    assert arkit.curves.sum() == pytest.approx(1.0) and read_arkit(path, fps=50).fps == 50


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.csv", "", "holds nothing"),
        ("a.csv", "Timecode,JawOpen\n", "holds a header and no frame"),
        ("a.csv", "Timecode,Nothing\n1,2\n", "has no ARKit curve, such as EyeBlinkLeft"),
        ("a.csv", "HeadYaw\n0.1\n", "has no ARKit curve"),
        ("a.csv", "JawOpen,EyeBlinkLeft\n0.1,0.2\n0.3,open\n", "EyeBlinkLeft in row 3 .* is 'open', which is no number"),
        ("a.csv", "JawOpen,EyeBlinkLeft\nnan,0.2\n", "JawOpen in row 2 .* is 'nan'"),
        ("a.csv", "JawOpen,EyeBlinkLeft\n0.1,\n", "EyeBlinkLeft in row 2 .* is ''"),
        ("a.csv", "JawOpen,EyeBlinkLeft\n0.1\n", "row 2 .* has 1 cells, the header 2"),
        ("a.csv", "JawOpen,jawOpen\n0.1,0.1\n", "has the column JawOpen more than once"),
        ("a.csv", "JawOpen\n55\n", "JawOpen .* reaches 55; .* divide percent by 100"),
        ("a.csv", "JawOpen\n0.1\n", "frame rate .* give the frames per second"),
        ("a.csv", "Timecode,JawOpen\n00:00:00:01.0,0\n00:00:00:02.0,0\n", "frame rate"),
        ("a.csv", "Timecode,BlendShapeCount,JawOpen\n00:00:00:01.0,0\n", "no frame with a face"),
        ("a.json", "{", "no readable JSON"),
        ("a.json", "3", "it holds int"),
        ("a.json", '{"curves": []}', "it holds curves"),
        ("a.json", '{"fps": 30, "names": ["jawOpen"], "frames": []}', "holds no frame"),
        ("a.json", '{"fps": 30, "names": ["jawOpen"], "frames": [[0.1, 0.2]]}', "frame 0 .* has 2 values for 1 names"),
        ("a.json", '{"fps": 30, "names": ["jawOpen"], "frames": [[0.1], ["x"]]}', "jawOpen in frame 1 .* is 'x'"),
        ("a.json", '{"fps": 30, "names": ["jawOpen"], "frames": [[NaN]]}', "jawOpen in frame 0 .* is 'nan'"),
        ("a.json", '{"fps": 30, "names": ["jawOpen"], "frames": [[true]]}', "jawOpen in frame 0 .* is 'True'"),
        ("a.json", '{"fps": 30, "frames": [[0.1]]}', "frame 0 .* is list"),
        ("a.json", '{"fps": "fast", "names": ["jawOpen"], "frames": [[0.1]]}', "fps in its head .* is 'fast'"),
        ("a.json", '{"fps": 0, "names": ["jawOpen"], "frames": [[0.1]]}', "frame rate"),
        ("a.json", '[{"time": 0, "weights": {"other": 1}}]', "no ARKit curve"),
        ("a.json", '[{"weights": {"jawOpen": 1}}, {"weights": {"jawOpen": 0}}]', "frame rate"),
        ("a.txt", "JawOpen\n0.1\n", "neither .csv nor .json"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no ARKit curves")
def test_bad_files_are_named_in_one_sentence(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_arkit(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_other_bad_input(arkit, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_arkit(tmp_path / "absent.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00JawOpen")
    with pytest.raises(ValueError, match="no text file"):
        read_arkit(tmp_path / "b.csv")
    with pytest.raises(ValueError, match="neither .csv nor .json"):
        write_arkit(tmp_path / "a.txt", arkit)
    assert not (tmp_path / "a.txt").exists()
    for bad in (-1.0, math.nan):
        write_arkit(tmp_path / "a.csv", arkit)
        with pytest.raises(ValueError, match="frame rate"):
            read_arkit(tmp_path / "a.csv", fps=bad)
