"""What a user sets is a finite number in its range, wherever it is set."""

import math
import re
from functools import partial

import pytest
import torch

from mmdiffusion.diffusion import (
    AggregatedDiffusion,
    ConfidenceUnmasking,
    CosineSchedule,
    LinearDrift,
    OneshotDrift,
    SaturatingDrift,
    WeightedDrift,
)
from mmdiffusion.diffusion.categorical import temper
from mmdiffusion.diffusion.schedules import DriftSchedule
from mmdiffusion.methods import Contrast, IntraNegatives
from mmdiffusion.numbers import check_number
from tests.helpers import build_method
from tests.methods import build_diffdis, build_extras, test_cdcd, test_vq_autoencoder

MAKERS = {
    "a drift": [
        ("strength", "0 or more, and finite", LinearDrift),
        ("strength", "0 or more, and finite", SaturatingDrift),
        ("strength", "0 or more, and finite", OneshotDrift),
        ("time_scale", "above 0, and finite", partial(SaturatingDrift, 0.5)),
        ("weights", "a finite number", WeightedDrift),
        ("weights", "a finite number", lambda weights: WeightedDrift([0.1, weights])),
    ],
    "sampling tokens": [
        ("temperature", "0 or more, and finite", ConfidenceUnmasking),
        ("temperature", "above 0, and finite", lambda temperature: temper(torch.zeros(1, 1, 2), temperature)),
        ("temperature", "above 0, and finite", lambda x: test_cdcd.build(temperature=x)),
    ],
    "a weight": [
        ("weight of label", "0 or more, and finite", lambda x: build_method(weight=x)),
        ("generation_weight", "0 or more, and finite", lambda x: build_diffdis.build(generation_weight=x)),
        ("alignment_weight", "0 or more, and finite", lambda x: build_diffdis.build(alignment_weight=x)),
        ("alignment_rate", "above 0, and finite", lambda x: build_diffdis.build(alignment_rate=x)),
        ("squared_weight", "0 or more, and finite", lambda x: test_vq_autoencoder.build(squared_weight=x)),
        ("commitment_weight", "0 or more, and finite", lambda x: test_vq_autoencoder.build(commitment_weight=x)),
        ("auxiliary_weight", "0 or more, and finite", lambda x: test_cdcd.build(auxiliary_weight=x)),
        ("weight", "above 0, and finite", lambda x: Contrast(IntraNegatives(), weight=x)),
        ("temperature", "above 0, and finite", lambda x: Contrast(IntraNegatives(), temperature=x)),
        ("ceiling", "above 0, and finite", lambda x: Contrast(IntraNegatives(), ceiling=x)),
    ],
    "guidance": [
        ("guidance", "a finite number", lambda x: build_method(guidance=x)),
        ("head_guidance", "a finite number", lambda x: build_method(head_guidance=x)),
        ("representation_guidance", "a finite number", lambda x: build_method(representation_guidance=x)),
        ("guidance", "a finite number", lambda x: test_cdcd.build(guidance=x)),
        ("guidance", "a finite number", lambda x: build_diffdis.build(guidance=x)),
        ("alignment_guidance", "a finite number", lambda x: build_diffdis.build(alignment_guidance=x)),
    ],
}
LABEL, PROMPTS = {"label": torch.arange(2)}, {"caption": build_diffdis.PROMPTS[:2]}
REQUESTS = [
    ("guidance", lambda x: build_method().sample(LABEL, seeds=range(2), guidance=x)),
    ("head_guidance", lambda x: build_method().sample(LABEL, seeds=range(2), head_guidance=x)),
    (
        "representation_guidance",
        lambda x: build_extras.build("feature").sample({}, seeds=range(2), representation_guidance=x),
    ),
    ("guidance", lambda x: test_cdcd.build().sample(LABEL, seeds=range(2), guidance=x)),
    ("guidance", lambda x: build_diffdis.build().sample(PROMPTS, seeds=range(2), guidance=x)),
    ("guidance", lambda x: build_diffdis.build().encode_image(build_diffdis.batch_of(2), guidance=x)),
]
CASES = [(*case, kind) for kind, cases in MAKERS.items() for case in cases]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("field", "expected", "make"), [case[:3] for case in CASES], ids=[f"{c[3]}-{c[0]}" for c in CASES]
)
def test_a_setting_that_is_not_finite_is_named(field, expected, make, value):
    with pytest.raises(ValueError, match=f"^{re.escape(f'{field} is {value}: expected {expected}')}"):
        make(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("field", "ask"), REQUESTS)
def test_a_request_that_is_not_finite_is_named(field, ask, value):
    with pytest.raises(ValueError, match=f"^{field} is {value}: expected a finite number$"):
        ask(value)


@pytest.mark.parametrize(
    ("value", "limits", "expected"),
    [
        (-0.1, {"least": 0}, "0 or more, and finite"),
        (0.0, {"above": 0}, "above 0, and finite"),
        (-math.inf, {}, "a finite number"),
        (0.0, {"above": 0, "remedy": "take another"}, "above 0, and finite; take another"),
    ],
)
def test_a_message_says_what_was_expected(value, limits, expected):
    with pytest.raises(ValueError, match=f"^size is {value}: expected {expected}$"):
        check_number("size", value, **limits)


def test_limits_are_in_their_range():
    check_number("size", 0.0, least=0)
    check_number("size", 1e-300, above=0)
    check_number("size", -5)


class Broken(DriftSchedule):
    """A drift of a user, with one entry that is no number."""

    def __init__(self, entry, value):
        self.entry, self.value = entry, value

    def drift(self, alpha_bar):
        drift = torch.zeros_like(alpha_bar)
        drift[self.entry] = self.value
        return drift


@pytest.mark.parametrize("entry", [3, -1])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_a_drift_that_is_not_finite_is_refused(entry, value):
    """1e300 is finite in float64 and infinite in the table; |NaN| passes any tolerance at the prior."""
    with pytest.raises(ValueError, match=r"aggregation of 'x': alpha_tilde holds NaN or infinity in torch\.float32"):
        AggregatedDiffusion(CosineSchedule(20), {"x": Broken(entry, value)})
