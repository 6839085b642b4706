import pytest

from expportrait.transfer.arkit_bridge import ARKIT_NAMES
from expportrait.transfer.expression_controls import CONTROLS, curve_amounts, named_expressions
from expportrait.transfer.expression_keyframes import parse_keyframes


def test_every_named_expression_is_there_and_within_arkits_range(model):
    assert set(named_expressions()) == {*"neutral smile surprise anger sadness disgust fear".split(), *"AIUEO"}
    high = dict(zip(model.expression_names, model.expression_bounds[:, 1].tolist()))
    seen = []
    for name in named_expressions():
        curves = curve_amounts({name: 1.0})
        assert all(control in ARKIT_NAMES and 0 < amount <= high[control] for control, amount in curves.items())
        assert bool(curves) == (name != "neutral") and curves not in seen
        seen.append(curves)


def test_amounts_are_spelled_out_and_add_up():
    smile = curve_amounts({"smile": 1.0})
    mixed = curve_amounts({"Smile": 0.5, "mouthsmileleft": 0.25, "headYaw": -20.0, "browDown": 0.3})
    assert mixed["mouthSmileLeft"] == pytest.approx(0.5 * smile["mouthSmileLeft"] + 0.25)
    assert mixed["mouthSmileRight"] == pytest.approx(0.5 * smile["mouthSmileRight"])
    assert mixed["browDownLeft"] == mixed["browDownRight"] == 0.3 and mixed["headYaw"] == -20.0
    assert set(mixed) <= set(CONTROLS)


@pytest.mark.parametrize(
    "terms, words",
    [
        ({"suprise": 1.0}, "no expression 'suprise'; did you mean surprise"),
        ({"qqq": 1.0}, "choose neutral, smile"),
        ({"smile": 2.5}, "smile is 2.5; give a number from -1 to 2"),
        ({"jawOpen": float("nan")}, "jawOpen is nan"),
        ({"headYaw": 120.0}, "from -90 to 90 degrees"),
    ],
)
def test_unknown_names_and_wild_amounts_are_refused(terms, words):
    with pytest.raises(ValueError, match=words):
        curve_amounts(terms)


def test_text_in_all_its_forms():
    text = "24: surprise 1, jawOpen 0.2; 0: smile 0.4\n\n 1.5s : blah\n".replace("blah", "browDown .3 + headPitch -10\n48:")
    keys = parse_keyframes(text, fps=24.0)
    assert [key.seconds for key in keys] == [0.0, 1.0, 1.5, 2.0]
    assert keys[0].amounts == curve_amounts({"smile": 0.4})
    assert keys[1].amounts == curve_amounts({"surprise": 1.0, "jawOpen": 0.2})
    assert keys[2].amounts == {"browDownLeft": 0.3, "browDownRight": 0.3, "headPitch": -10.0}
    assert keys[3].amounts == {}
    assert parse_keyframes("3: fear", 25.0)[0].amounts == curve_amounts({"fear": 1.0})
    assert parse_keyframes(" \n;", 25.0) == ()


@pytest.mark.parametrize(
    "text, words",
    [
        ("0: smile\n24: suprise 1", r"line 2 of the keyframes, '24: suprise 1': there is no expression 'suprise'; did you mean surprise"),
        ("smile 0.4", "a key needs a time and a colon"),
        ("x: smile", "'x' is no time"),
        ("-3: smile", "'-3' is no time"),
        ("0: smile much", "'much' is no amount of smile"),
        ("0: smile nan", "'nan' is no amount of smile"),
        ("0: smile 7", "smile is 7"),
        ("0: smile 0.4 0.5", "is no name with an amount"),
        ("0: smile 0.4, smile 0.5", "smile stands there twice"),
        ("25: smile; 1s: fear", "already a key at this time"),
    ],
)
def test_errors_tell_the_line_and_what_was_wrong(text, words):
    with pytest.raises(ValueError, match=words):
        parse_keyframes(text, 25.0)
