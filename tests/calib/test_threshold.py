from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.calib.intervals import wilson
from immunogate.calib.threshold import (
    ALARM_RATE,
    RATES,
    PairScores,
    calibrate,
    even_out,
    pair_scores,
    thin,
    threshold_at,
)
from immunogate.errors import InputError


def unit(array: Any) -> Any:
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def people(count: int, photos: int, spread: float, seed: int = 0) -> tuple[Any, Any]:
    """Embeddings of ``count`` people around directions of their own, and whose they are."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(draw.normal(size=(count, 32)), photos, axis=0)
    embeddings = unit(centres + spread * draw.normal(size=centres.shape))
    return embeddings, np.repeat([f"person_{i}" for i in range(count)], photos)


def scores_of(impostor: Any, genuine: Any = ()) -> PairScores:
    return PairScores(np.array(genuine, np.float32), np.sort(np.array(impostor, np.float32)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.integers(0, 1000))
def test_pair_scores_are_those_of_a_loop(names: list[str], seed: int) -> None:
    embeddings, identities = unit(np.random.default_rng(seed).normal(size=(len(names), 6))), np.array(names)
    want: dict[bool, list[float]] = {True: [], False: []}
    for i, j in itertools.combinations(range(len(names)), 2):
        want[names[i] == names[j]].append(float(embeddings[i] @ embeddings[j]))
    found = pair_scores(embeddings, identities)
    assert found.genuine.dtype == found.impostor.dtype == np.float32
    assert sorted(found.genuine.tolist()) == pytest.approx(sorted(want[True]), abs=1e-6)
    assert found.impostor.tolist() == pytest.approx(sorted(want[False]), abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.sampled_from([-0.5, 0.0, 0.25, 0.5]), max_size=20), st.sampled_from([-0.5, 0.0, 0.1, 0.5, 0.6]))
def test_at_the_threshold_is_a_match(values: list[float], threshold: float) -> None:
    matching = sum(value >= threshold for value in values)
    assert scores_of(values).false_matches(threshold) == matching
    assert scores_of([], values).tar(threshold) == (matching / len(values) if values else 0.0)


# A coarse grid makes ties, a fine one does not.
impostors = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.tuples(st.just(seed), st.integers(1, 1500), st.sampled_from([5, 50, 10**6]))
)


@settings(max_examples=150, deadline=None)
@given(impostors, st.sampled_from([0.3, 0.1, 0.03, 0.01]))
def test_it_is_the_smallest_threshold_whose_bound_holds(drawn: tuple[int, int, int], fmr: float) -> None:
    """The bound at it meets the target; one notch of float32 lower an impostor more gets in and it does not."""
    seed, trials, steps = drawn
    scores = scores_of(np.random.default_rng(seed).integers(-steps, steps, trials) / steps)
    found = threshold_at(scores, fmr)
    if found is None:
        assert wilson(0, trials)[1] > fmr
        return
    at = scores.false_matches(found.threshold)
    assert found.fmr_upper == wilson(at, trials)[1] <= fmr
    lower = float(np.nextafter(np.float32(found.threshold), np.float32(-2)))
    assert scores.false_matches(lower) > at
    assert wilson(scores.false_matches(lower), trials)[1] > fmr
    assert (found.fmr, found.impostor_pairs) == (fmr, trials)


def test_tied_impostors_are_left_out_together() -> None:
    """1,000 impostors, 50 of them equal: either all 50 match or none, and at 3 % it is none."""
    scores = scores_of(np.concatenate([np.linspace(-1, 0.4, 945), np.full(50, 0.5), np.linspace(0.6, 0.7, 5)]))
    found = threshold_at(scores, 0.03)
    assert found is not None
    assert scores.false_matches(found.threshold) == 5
    assert 0.5 < found.threshold < 0.6


def test_equal_impostors_throughout_leave_only_what_is_above_them() -> None:
    scores = scores_of(np.full(1000, 0.25), [0.25, 0.5])
    found = threshold_at(scores, 0.01)
    assert found is not None
    assert found.threshold == float(np.nextafter(np.float32(0.25), np.float32(1)))
    assert (found.tar, found.genuine_pairs) == (0.5, 2)
    assert found.fmr_upper == wilson(0, 1000)[1]


@pytest.mark.parametrize(("fmr", "least"), [(1e-2, 381), (1e-3, 3838), (1e-4, 38_411)])
def test_too_few_pairs_give_none(fmr: float, least: int) -> None:
    """No error in N has an upper end of z^2 / (N + z^2): N of at least z^2 (1 / rate - 1) supports the rate."""
    values = np.linspace(-1, 0.5, least)
    assert threshold_at(scores_of(values[1:]), fmr) is None
    found = threshold_at(scores_of(values), fmr)
    assert found is not None
    assert found.threshold > 0.5
    assert threshold_at(scores_of([]), fmr) is None


def test_the_threshold_survives_json() -> None:
    """It lies between float32 neighbours: as a decimal it must come back as the same number."""
    found = threshold_at(scores_of(np.random.default_rng(1).uniform(-1, 1, 1000)), 0.01)
    assert found is not None
    assert float(repr(found.threshold)) == found.threshold == float(np.float32(found.threshold))


def test_calibrate_separable_people() -> None:
    embeddings, identities = people(40, 4, 0.15)
    found = calibrate(embeddings, embeddings, identities, "hash", "synthetic")
    assert (found.status, found.measured_on, found.source) == ("measured", "hash", "synthetic")
    assert [entry.fmr for entry in found.thresholds] == [1e-2, 1e-3]  # 12,480 impostor pairs do not support 1e-4
    for entry in found.thresholds:
        assert entry.impostor_pairs == 40 * 39 // 2 * 16
        assert entry.genuine_pairs == 40 * 6
        assert entry.fmr_upper <= entry.fmr
        assert entry.tar > 0.99
    assert found.thresholds[0].threshold < found.thresholds[1].threshold


def test_calibrate_holds_on_other_people_of_the_same_kind() -> None:
    """The threshold of one half of the people keeps its false match rate on the other half, within its own error."""
    embeddings, identities = people(240, 2, 0.6, seed=3)
    entry = calibrate(embeddings[:240], embeddings[:240], identities[:240], "", "").at(1e-2)
    others = pair_scores(embeddings[240:], identities[240:])
    low, high = wilson(others.false_matches(entry.threshold), len(others.impostor), z=6)
    assert low <= 0.01
    assert high > entry.fmr / 3


def test_the_thresholds_are_those_of_the_purified_faces() -> None:
    purified, identities = people(40, 2, 0.2)
    raw, _ = people(40, 2, 0.2, seed=9)
    one, other = (calibrate(before, purified, identities, "", "") for before in (raw, purified))
    assert one.thresholds == other.thresholds
    assert one.alarm > other.alarm


@pytest.mark.parametrize("count", [500, 1001, 1500, 2000])
def test_alarm_leaves_out_no_more_than_the_stated_share_of_faces(count: int) -> None:
    """Faces at known angles; of 500 none may lie above the limit, of 1,001 one."""
    angle = np.random.default_rng(2).permutation(np.linspace(0, 1, count))
    raw = np.zeros((count, 4), np.float32)
    raw[:, 0] = 1
    purified = np.zeros((count, 4), np.float32)
    purified[:, 0], purified[:, 1] = np.cos(angle), np.sin(angle)
    found = calibrate(raw, purified, np.arange(count).astype(str), "", "")
    attack_scores = 1 - np.cos(np.sort(angle))
    above = (attack_scores > found.alarm + 1e-7).sum()
    assert above <= ALARM_RATE * count
    assert above >= int(ALARM_RATE * count) - 1
    assert found.alarm_rate == above / count


@pytest.mark.parametrize("sign", [1, -1])
def test_alarm_stays_in_the_range_of_attack_scores(sign: int) -> None:
    """Rounding makes 1 - cosine leave [0, 2] for equal and opposite embeddings; a policy takes no such limit."""
    embeddings, identities = people(60, 2, 0.3)
    found = calibrate(sign * embeddings * np.float32(1 + 1e-6), embeddings, identities, "", "")
    assert 0 <= found.alarm <= 2
    assert found.alarm == pytest.approx(1 - sign, abs=1e-5)


def test_calibrate_refuses_too_few_people() -> None:
    embeddings, identities = people(3, 2, 0.1)
    with pytest.raises(InputError) as caught:
        calibrate(embeddings, embeddings, identities, "", "")
    assert "12 comparisons of different people do not support a false match rate of 0.01" in caught.value.what
    assert "give faces for 400 comparisons" in caught.value.mend
    assert wilson(0, 400)[1] <= RATES[0]  # the advice is enough


def test_calibrate_refuses_one_person_alone() -> None:
    embeddings, identities = people(1, 50, 0.1)
    with pytest.raises(InputError, match="0 comparisons of different people"):
        calibrate(embeddings, embeddings, identities, "", "")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(1, 220), st.integers(0, 5))
def test_thin_keeps_whole_people(owners: list[int], most: int, seed: int) -> None:
    identities = np.array([f"p{owner}" for owner in owners])
    kept = thin(identities, most, seed)
    assert len(kept) <= max(most, 0)
    assert np.array_equal(kept, np.sort(kept))
    assert np.array_equal(thin(identities, most, seed), kept)
    for person in set(identities[kept]):
        assert set(np.flatnonzero(identities == person)) <= set(kept.tolist())
    if len(owners) <= most:
        assert np.array_equal(kept, np.arange(len(owners)))
    else:
        largest = np.unique(identities, return_counts=True)[1].max()
        assert len(kept) > most - largest  # nobody else would have fitted


def test_thin_draws_by_its_seed() -> None:
    identities = np.repeat([f"p{i}" for i in range(100)], 2)
    drawn = [thin(identities, 50, seed).tolist() for seed in range(4)]
    assert len({tuple(kept) for kept in drawn}) == 4
    assert all(len(kept) == 50 for kept in drawn)


@given(owners=st.lists(st.integers(0, 4), min_size=1, max_size=60), most=st.integers(1, 8))
def test_nobody_counts_more_often_than_allowed(owners: list[int], most: int) -> None:
    identities = np.array([f"person {owner}" for owner in owners])
    kept = even_out(identities, most)
    assert kept.tolist() == sorted(set(kept.tolist()))
    for owner in set(owners):
        mine = [index for index, other in enumerate(owners) if other == owner]
        assert [index for index in kept.tolist() if index in mine] == mine[:most]
