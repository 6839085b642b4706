import dataclasses

import numpy as np
import pytest
import torch

from expportrait.proxy.calibrate import calibrate_landmarks, landmarks_path, save_landmarks
from expportrait.proxy.head_asset import read_landmarks
from expportrait.proxy.landmark_points import FACE_OVAL, IRISES
from expportrait.proxy.landmarks import load_landmarker


@pytest.fixture(scope="module")
def table(model):
    with torch.inference_mode():
        return calibrate_landmarks(model, load_landmarker(), renders=16, seed=3)


def test_a_short_calibration_agrees_with_the_shipped_table(model, table):
    template = (model.stencil @ model.template)[None]
    apart = (table.points(template, model.faces) - model.landmarks.points(template, model.faces))[0].norm(dim=-1)
    inner = torch.ones(478, dtype=torch.bool)
    inner[FACE_OVAL] = False
    assert apart[inner].median() < 0.004


def test_the_table_is_well_formed(model, table):
    assert table.triangle.min() >= 0 and table.triangle.max() < len(model.faces)
    assert table.barycentric.min() >= 0 and torch.allclose(table.barycentric.sum(1), torch.ones(478), atol=1e-5)
    assert table.weight.max() <= 1 and (table.weight[FACE_OVAL] == 0).all() and not table.triangle.is_inference()


def test_irises_lie_on_eyeballs_and_lips_and_noses_where_they_should(model, table):
    eyes = (model.parts == 1) | (model.parts == 2)
    assert eyes[table.triangle[IRISES]].all()
    points = table.points((model.stencil @ model.template)[None], model.faces)[0]
    assert points[468, 0] < -0.01 and points[473, 0] > 0.01  # the subject's right and left
    assert points[1, 2] > points[33, 2] and points[0, 1] > points[17, 1]  # nose tip in front, upper lip above lower


def test_a_table_is_kept_beside_a_model_file(tmp_path, model, table):
    path = landmarks_path(tmp_path / "model.npz")
    assert path.name == "model.npz.landmarks.npz"
    save_landmarks(path, table, "some-model")
    again = read_landmarks(path)
    assert torch.equal(again.triangle, table.triangle) and torch.allclose(again.barycentric, table.barycentric)
    with np.load(path) as file:
        assert str(file["model_id"]) == "some-model"


def test_a_model_without_a_face_is_refused(model, generator):
    template = model.template + 0.2 * torch.randn(model.template.shape, generator=generator)
    with pytest.raises(ValueError, match="found a face in only"):
        calibrate_landmarks(dataclasses.replace(model, template=template), load_landmarker(), renders=8)
