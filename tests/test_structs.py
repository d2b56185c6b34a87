from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.structs import (
    CROP_SIZE,
    DECISION_SCHEMA,
    PIXELS,
    Antibodies,
    Decision,
    Faces,
    Frame,
    Match,
    expect_dtype,
    expect_shape,
)


def frame(pixels: Any) -> Frame:
    return Frame(pixels, 0, 0, 0.0, 0.0, "test")


def faces(count: int) -> Faces:
    draw = np.random.default_rng(count)
    return Faces(
        draw.random((count, 4), np.float32), draw.random((count, 5, 2), np.float32), draw.random(count, np.float32)
    )


def decision(**changes: Any) -> Decision:
    fields: dict[str, Any] = {
        "decision_id": "018f-1",
        "camera": "door",
        "frame": 3,
        "track": 1,
        "captured_at": "2026-01-01T00:00:00.000Z",
        "decided_at": "2026-01-01T00:00:00.050Z",
        "age_ms": 50.0,
        "outcome": "allow",
        "reason": "match",
        "person": "Ada",
        "similarity": 0.7,
        "similarity_raw": 0.71,
        "margin": 0.3,
        "attack_score": 0.1,
        "confirmations": 3,
        "box": (1, 2, 3, 4),
        "antibody": {"mode": "fixed", "seed": 0, "clones": 0, "size": 1000},
        "bundle": "f" * 64,
        "latency_ms": {"detect": 5.0},
    }
    return Decision(**(fields | changes))


def test_pixels_are_those_of_a_crop() -> None:
    assert PIXELS == CROP_SIZE**2 == 12544


@pytest.mark.parametrize("shape", [(0, 2), (3, None), (None, None)])
def test_a_fitting_shape_passes(shape: tuple[int | None, ...]) -> None:
    expect_shape("x", np.zeros((3 if shape[0] == 3 else 0, 2)), shape)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 1), (2, 2), (3, 3), (), (None,)])
def test_another_shape_is_refused_with_both(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(ValueError) as caught:
        expect_shape("x.y", np.zeros((3, 2)), shape)
    assert str(caught.value) == f"x.y: expected shape {shape}, got (3, 2)"


def test_another_dtype_is_refused_with_both() -> None:
    expect_dtype("x", np.zeros(1, np.float32), np.float32)
    with pytest.raises(ValueError, match="x: expected dtype float32, got float64"):
        expect_dtype("x", np.zeros(1), np.float32)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"Frame.pixels: expected shape \(None, None, 3\), got \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"expected shape \(None, None, 3\), got \(4, 4, 4\)"),
        (np.zeros((4, 4, 3)), r"Frame.pixels: expected dtype uint8, got float64"),
    ],
)
def test_a_frame_is_bgr_bytes(pixels: Any, message: str) -> None:
    frame(np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=message):
        frame(pixels)


@pytest.mark.parametrize(
    ("boxes", "landmarks", "scores", "message"),
    [
        ((2, 4), (2, 5, 2), (3,), r"Faces.boxes: expected shape \(3, 4\), got \(2, 4\)"),
        ((2, 4), (1, 5, 2), (2,), r"Faces.landmarks: expected shape \(2, 5, 2\), got \(1, 5, 2\)"),
        ((2, 4), (2, 10), (2,), r"Faces.landmarks: expected shape \(2, 5, 2\), got \(2, 10\)"),
        ((2, 5), (2, 5, 2), (2,), r"Faces.boxes: expected shape \(2, 4\), got \(2, 5\)"),
        ((2, 4), (2, 5, 2), (2, 1), r"Faces.scores: expected shape \(None,\), got \(2, 1\)"),
    ],
)
def test_faces_belong_together(boxes: Any, landmarks: Any, scores: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Faces(*(np.zeros(shape, np.float32) for shape in (boxes, landmarks, scores)))


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=6))
def test_taken_faces_keep_their_parts_together(indices: list[int]) -> None:
    all_faces = faces(5)
    taken = all_faces.take(indices)
    assert len(taken) == len(indices)
    for row, index in enumerate(indices):
        assert np.array_equal(taken.boxes[row], all_faces.boxes[index])
        assert np.array_equal(taken.landmarks[row], all_faces.landmarks[index])
        assert taken.scores[row] == all_faces.scores[index]


def test_no_face() -> None:
    assert len(Faces.none()) == 0
    assert len(Faces.none().take([])) == 0


def test_the_largest_face_has_the_largest_area() -> None:
    boxes = np.array([[0, 0, 10, 10], [100, 100, 130, 104], [5, 5, 16, 16]], np.float32)
    assert Faces(boxes, np.zeros((3, 5, 2), np.float32), np.ones(3, np.float32)).largest() == 2


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros((2, 3), np.float32), r"Antibodies.weights: expected shape \(None, None, None\), got \(2, 3\)"),
        (np.zeros((2, 1, 3)), "Antibodies.weights: expected dtype float32, got float64"),
        (np.zeros((2, 1, 3), bool), "Antibodies.weights: expected dtype float32, got bool"),
    ],
)
def test_antibodies_are_weights_of_genes(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Antibodies("fixed", 0, 0, weights)


def test_size_counts_weights_above_one_half_of_the_first_antibody() -> None:
    weights = np.array([[[0.5, 0.51, 1.0], [1, 1, 1]], [[0, 0, 0.49], [1, 1, 1]]], np.float32)
    antibodies = Antibodies("expected", 0, 0, weights)
    assert len(antibodies) == 2
    assert antibodies.sizes().tolist() == [2, 0]


def test_a_match_without_a_runner_up_has_an_infinite_margin() -> None:
    assert Match("Ada", 0.5).margin == math.inf


@pytest.mark.parametrize(
    "instance", [frame(np.zeros((1, 1, 3), np.uint8)), faces(1), Match(None, -1.0), decision()], ids=lambda i: type(i)
)
def test_structures_are_frozen(instance: Any) -> None:
    name = dataclasses.fields(instance)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(instance, name, None)


def test_a_decision_has_the_keys_of_the_contract() -> None:
    record = json.loads(decision().to_json())
    assert record["schema"] == DECISION_SCHEMA == 1
    assert {
        "decision_id",
        "camera",
        "track",
        "captured_at",
        "decided_at",
        "age_ms",
        "outcome",
        "reason",
        "person",
        "similarity",
        "similarity_raw",
        "margin",
        "attack_score",
        "antibody",
        "bundle",
        "latency_ms",
    } <= set(record)
    assert {"mode", "seed", "clones", "size"} <= set(record["antibody"])
    assert next(iter(record)) == "schema"
    assert record["box"] == [1, 2, 3, 4]


def test_what_is_not_known_is_null() -> None:
    unknown = dict.fromkeys(("person", "similarity", "similarity_raw", "margin", "attack_score"))
    record = json.loads(decision(**unknown).to_json())
    assert all(record[name] is None for name in unknown)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["age_ms", "similarity", "similarity_raw", "margin", "attack_score"])
def test_a_number_that_json_does_not_know_is_never_written(field: str, bad: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        decision(**{field: bad}).to_json()
    with pytest.raises(ValueError, match="not JSON compliant"):
        decision(latency_ms={"purify": bad}).to_json()


@settings(deadline=None)
@given(st.text(), st.text(), st.floats(-1, 1))
def test_a_decision_is_one_line_and_comes_back(person: str, detail: str, similarity: float) -> None:
    """Names and error texts come from outside: line ends, quotes and lone surrogates must not break the line."""
    line = decision(person=person, detail=detail, similarity=similarity).to_json()
    assert line.isascii()
    assert len(line.splitlines()) == 1
    record = json.loads(line)
    assert (record["person"], record["detail"], record["similarity"]) == (person, detail, similarity)
