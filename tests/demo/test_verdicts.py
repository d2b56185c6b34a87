"""What the demo says follows what was measured: no act that failed is told as a success."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from immunogate.demo.acts import ACTS, Act, Played, Seen
from immunogate.demo.gates import Limits
from immunogate.demo.verdicts import counts, median_similarity, sentence, to_dict, to_text
from immunogate.structs import Decision

LIMITS = Limits(0.5, 0.4, 0.45, own=True)
EXPECTED, DODGED, STRANGER, IMPERSONATED = ACTS


def _decision(frame: int, outcome: Any, similarity: float | None = 0.5) -> Decision:
    return Decision(
        *("id", "camera", frame, 1, "then", "now", 1.0, outcome, "match", "Ann", similarity, 0.5, None, 0.1, 1),
        *((0, 0, 9, 9), {}, "hash"),
    )


def _played(act: Act, bare: str, defended: str) -> Played:
    """Frames by the letters a(llow), d(eny), x (alarm), - (no face)."""
    names = {"a": "allow", "d": "deny", "x": "alarm"}
    pixels = np.zeros((4, 4, 3), np.uint8)
    frames = [
        Seen(
            index,
            pixels,
            None,
            None,
            None if ours == "-" else _decision(index, names[ours]),
            None if theirs == "-" else _decision(index, names[theirs]),
        )
        for index, (theirs, ours) in enumerate(zip(bare, defended, strict=True))
    ]
    return Played(act, frames)


@pytest.mark.parametrize(
    ("act", "bare", "defended", "hoped"),
    [
        (EXPECTED, "daaa", "daaa", True),
        (EXPECTED, "dddd", "daaa", False),  # a gate that fails her without any attack shows nothing
        (EXPECTED, "daaa", "dddd", False),
        (EXPECTED, "daaa", "xxxx", False),  # an alarm without an attack is a failure
        (DODGED, "dddd", "daaa", True),
        (DODGED, "dddd", "xxxx", True),
        (DODGED, "dddd", "ddxa", True),
        (DODGED, "dddd", "dddx", False),
        (DODGED, "dddd", "----", False),
        (DODGED, "daaa", "daaa", False),  # the attack did not work: nothing was shown
        (STRANGER, "dddd", "dddd", True),
        (STRANGER, "dddd", "dxxd", True),
        (STRANGER, "ddda", "dddd", False),
        (STRANGER, "dddd", "ddda", False),
        (IMPERSONATED, "ddaa", "dddd", True),
        (IMPERSONATED, "ddaa", "xxxx", True),
        (IMPERSONATED, "dddd", "dddd", False),
        (IMPERSONATED, "ddaa", "xxxa", False),  # one open door is one too many
    ],
)
def test_when_an_act_went_as_it_should(act: Act, bare: str, defended: str, hoped: bool) -> None:
    played = _played(act, bare, defended)
    assert played.as_hoped() is hoped
    assert ("NOT as it should be" in to_text([played], LIMITS, "Ann", 8)) is not hoped
    assert to_dict([played], LIMITS, "Ann", 8)["as_hoped"] is hoped


def test_no_two_different_ends_are_told_in_the_same_words() -> None:
    said: dict[str, tuple[bool, bool]] = {}
    rows = ["aaaa", "dddd", "xxxx", "----"]
    for act in ACTS:
        for bare, defended in itertools.product(("aaaa", "dddd"), rows):
            played = _played(act, bare, defended)
            words, end = f"{act.number} {sentence(played, 'Ann')}", (played.fooled(), played.held())
            assert said.setdefault(words, end) == end, words


def test_a_door_that_opened_is_named_as_such() -> None:
    assert "ALSO takes the stranger for Ann and opens" in sentence(_played(IMPERSONATED, "aaaa", "ddda"), "Ann")
    assert "FAILS her" in sentence(_played(DODGED, "dddd", "dddd"), "Ann")


def test_a_false_alarm_is_told() -> None:
    assert sentence(_played(STRANGER, "dddd", "dxxd"), "Ann").endswith("kept out, with a false alarm in 2 frames")
    assert sentence(_played(EXPECTED, "aaaa", "aaax"), "Ann").endswith("let in, with a false alarm in 1 frames")
    assert "false" not in sentence(_played(IMPERSONATED, "aaaa", "xxxx"), "Ann")


def test_frames_are_counted() -> None:
    played = _played(DODGED, "dd--", "dxaa")
    assert counts(played, defended=True).startswith(
        "allow  2, deny  1, alarm  1 of 4 frames, first opened in frame 2; similarity +0.50"
    )
    assert "no face seen 2 of 4 frames, never opened" in counts(played, defended=False)


def test_no_similarity_at_all_is_said() -> None:
    played = _played(DODGED, "----", "----")
    assert median_similarity(played, defended=True) is None
    assert "no similarity" in counts(played, defended=True)
    json.dumps(to_dict([played], LIMITS, "Ann", 8), allow_nan=False)


def test_the_text_says_whose_threshold_it_is_and_the_sum() -> None:
    acts = [_played(EXPECTED, "aaaa", "aaaa"), _played(STRANGER, "dddd", "aaaa")]
    text = to_text(acts, LIMITS, "Ann", 8)
    assert "threshold 0.500 with purification, 0.450 without, at" in text
    assert text.endswith("1 of 2 acts went as they should")
    assert "states none of its own" in to_text(acts, Limits(0.5, 0.4, 0.5, own=False), "Ann", 8)
