import pytest
import torch

from expportrait.proxy.head_model import JOINTS
from expportrait.transfer.presets import load_preset, preset_names


def test_both_presets_are_there():
    assert preset_names() == ("expressions", "speaking")


@pytest.mark.parametrize("name", preset_names())
def test_presets_begin_and_end_at_rest_and_stay_in_bounds(model, name):
    motion, rest = load_preset(name, model)
    assert motion.expression[[0, -1]].abs().max() < 0.02
    assert motion.joints[[0, -1]].abs().max() < 0.01
    assert torch.equal(motion.translation[0], rest.translation)
    low, high = model.expression_bounds.unbind(-1)
    assert (motion.expression >= low).all() and (motion.expression <= high).all()
    assert motion.expression.amax(0).max() > 0.3


def test_curves_reach_the_names_they_are_written_for(model):
    speaking, expressions = (load_preset(name, model)[0] for name in ("speaking", "expressions"))
    index = {name: i for i, name in enumerate(model.expression_names)}
    assert speaking.expression[:, index["eyeBlinkLeft"]].max() > 0.95
    assert speaking.expression[:, index["jawOpen"]].max() > 0.4
    pitch = speaking.joints[:, JOINTS.index("head"), 0] + speaking.joints[:, JOINTS.index("neck"), 0]
    assert pitch.max() > 0.1 and pitch.min() < -0.05
    assert expressions.expression[:, index["tongueOut"]].max() > 0.85
    used = expressions.expression.amax(0) > 0.05
    assert used.sum() > 25


def test_unknown_name_says_what_there_is(model):
    with pytest.raises(ValueError, match="expressions, speaking"):
        load_preset("../speaking", model)
