"""``immunogate profile`` as a user types it, on the bundle that ships."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from json_schema import faults

from immunogate.bundle import Bundle
from immunogate.cli.profile import share_of
from immunogate.errors import UsageError

ROOT = Path(__file__).parents[2]
SWEEP = json.loads((ROOT / "docs/schemas/sweep.schema.json").read_text(encoding="utf-8"))
SCHEMA = json.loads((ROOT / "docs/schemas/profile.schema.json").read_text(encoding="utf-8"))
Command = Callable[..., Any]
BRIEF = ("--duration", "60", "--max-frames", "8", "--warm-up", "2", "--starts", "0", "--threads", "1", "--rate", "0")


@pytest.fixture(scope="module")
def own_bundle(make_tiny_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    bundle: Bundle = make_tiny_bundle(tmp_path_factory.mktemp("own") / "bundle")
    return bundle


@pytest.fixture(autouse=True)
def portraits() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")


def test_a_whole_profile_keeps_to_its_schema_and_leaves_its_files(immunogate: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = immunogate("profile", *BRIEF, "--starts", "1", "--json", "--out", out)
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert faults(document, SCHEMA) == []
    assert {path.name for path in out.iterdir()} >= {"profile.json", "frames.csv", "trace.json", "times.json"}
    assert json.loads((out / "profile.json").read_text(encoding="utf-8")) == document
    stages, runs = document["stages"], document["runs"]
    assert len(runs) == 2
    assert all(run["decisions"] == run["frames"] == 8 for run in runs)
    assert stages["age"]["n"] == stages["frame"]["n"] == sum(run["frames"] for run in runs)
    assert stages["age"]["p99_9"] is None
    cold = document["cold_start"]["parts_ms"]
    assert sum(row["median"] for name, row in cold.items() if name != "total") == pytest.approx(
        cold["total"]["median"], rel=0.01
    )
    assert cold["imports"]["median"] > 1
    assert document["resources"]["rss_mb"]["mean"] > 10
    assert document["overhead"]["counted_percent"] < 5
    for row in document["limits"]["stages"]:
        assert row["stage"] in stages
        assert row["measured_ms"] == stages[row["stage"]]["p50"]
    frames = (out / "frames.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert sum(",frame," in line for line in frames) == stages["frame"]["n"]
    assert len(json.loads((out / "times.json").read_text(encoding="utf-8"))) == stages["frame"]["n"]


def test_the_table_for_people(immunogate: Command) -> None:
    done = immunogate(
        "profile", *BRIEF, "--quick", "--faces", "3", "--mode", "select", "--clones", "16", "--max-frames", "3"
    )
    assert done.status == 0, done.err
    for words in (r"^age ", r"^frame ", r"^  network ", "mode select", "capture to decision", "n<1000", "3 faces"):
        assert re.search(words, done.out, re.MULTILINE), words
    assert "not told by this machine" in done.out
    assert "were found in most frames" not in done.out


def test_a_file_is_a_source_and_a_bundle_is_a_word(immunogate: Command, own_bundle: Bundle, data_dir: Path) -> None:
    clip = data_dir / "video/head-pose-face-detection-male.gif"
    words = (
        "--source",
        clip,
        "--looks",
        "gate",
        "--top-k",
        "20",
        "--mode",
        "fixed",
        "--json",
        "--quick",
        "--max-frames",
        "30",
    )
    done = immunogate("profile", own_bundle.folder, *BRIEF, *words)
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert document["bundle"]["model_id"] == "tiny"
    assert (document["settings"]["mode"], document["settings"]["top_k"]) == ("fixed", 20)
    assert document["settings"]["source"].endswith("male.gif")
    assert document["settings"]["size"] is None
    run = document["runs"][0]
    assert 0 < run["decisions"] < run["faces"]
    assert (document["cold_start"], document["overhead"], document["limits"]) == (None, None, None)


def test_two_profiles_are_compared(immunogate: Command, tmp_path: Path) -> None:
    done = immunogate("profile", *BRIEF, "--quick", "--max-frames", "4", "--out", tmp_path / "a")
    assert done.status == 0, done.err
    before = tmp_path / "a/profile.json"
    document = json.loads(before.read_text(encoding="utf-8"))
    after = tmp_path / "after.json"
    samples = {name: [20 * run for run in runs] for name, runs in document["samples_ms"].items()}  # a longer run
    for path, factor in ((before, 1), (after, 3)):
        slower = {name: [[factor * ms for ms in run] for run in runs] for name, runs in samples.items()}
        path.write_text(json.dumps({**document, "samples_ms": slower}), encoding="utf-8")
    same = immunogate("profile", "diff", before, before)
    assert same.status == 0
    assert "no difference" in same.out
    slower = immunogate("profile", "diff", before, after, "--json", "--fail-over", "10%")
    assert slower.status == 1
    assert json.loads(slower.out)["fails"] is True
    assert immunogate("profile", "diff", before, after, "--fail-over", "100%").status == 1
    assert immunogate("profile", "diff", after, before).status == 0
    immunogate("profile", "diff", before).refused(2, "two profiles")
    immunogate("profile", "diff", before, after, "--fail-over", "much").refused(2, "--fail-over", "5%")
    immunogate("profile", "diff", before, tmp_path / "a/times.json").refused(2, "times.json", "is no profile")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--faces", "17"), "--faces must be in 0 .. 16"),
        (("--size", "large"), "640x480"),
        (("--size", "20x20"), "--size"),
        (("--duration", "0"), "--duration"),
        (("--max-frames", "0"), "--max-frames"),
        (("--runs", "0"), "--runs"),
        (("--batch", "0"), "--batch"),
        (("--top-k", "100000", "--mode", "fixed"), "--top-k"),
        (("--clones", "9999", "--mode", "select"), "clones"),
        (("--people", "0"), "--people"),
        (("--rate", "-3"), "--rate"),
        (("--mode", "best"), "unknown mode"),
        (("--source", "nowhere.mp4"), "nowhere.mp4"),
        (("no-bundle",), "no-bundle"),
        (("a", "b"), "one bundle"),
    ],
)
def test_wrong_use_is_named(words: tuple[str, ...], said: str, immunogate: Command) -> None:
    immunogate("profile", *BRIEF, *words).refused(2, said)


def test_a_start_that_fails_says_why(immunogate: Command, tmp_path: Path) -> None:
    empty = tmp_path / "empty.gif"
    empty.write_bytes(b"GIF89a")
    done = immunogate("profile", *BRIEF, "--starts", "1", "--source", empty)
    done.refused(2, "does not start in a process of its own", "--starts 0")


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), (" 12.5 %", 0.125), ("0", 0), (".5", 0.5)])
def test_shares_are_read(text: str, share: float) -> None:
    assert share_of(text) == share


@pytest.mark.parametrize("text", ["", "five", "-1%", "200%", "1.2.3", "nan"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--fail-over"):
        share_of(text)


def test_a_grid_is_swept_from_both_ends(
    immunogate: Command, own_bundle: Bundle, data_dir: Path, tmp_path: Path
) -> None:
    words = (
        "--mode",
        "select",
        "--sweep",
        "faces=1,2,3",
        "--sweep",
        "clones=4,8",
        "--json",
        "--out",
        tmp_path,
        "--max-frames",
        "2",
    )
    done = immunogate("profile", own_bundle.folder, *BRIEF, *words)
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert faults(document, SWEEP) == []
    assert document["axes"] == {"faces": [1, 2, 3], "clones": [4, 8]}
    assert [point["at"] for point in document["points"]] == [
        {"faces": faces, "clones": clones} for faces in (1, 2, 3) for clones in (4, 8)
    ]
    assert all(point["faces"] == point["at"]["faces"] for point in document["points"])
    assert all(point["spread_percent"] is not None for point in document["points"])
    assert len(document["fits"]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.json", "sweep.html"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sweep", "clones=1,2"), "clones changes nothing in mode"),
        (("--sweep", "top_k=1,2"), "top_k changes nothing in mode"),
        (("--sweep", "colour=1,2"), "names no axis"),
        (("--sweep", "faces=one"), "whole numbers"),
        (("--sweep", "faces=1,,2"), "names no axis"),
        (("--sweep", "faces=1,99"), "--faces must be in"),
        (("--sweep", f"faces={','.join(map(str, range(501)))}"), "at most 500"),
        (("--sweep", "faces=1,2", "--source", "synthetic://"), "a source has the faces"),
    ],
)
def test_a_grid_that_makes_no_sense_is_named(words: tuple[str, ...], said: str, immunogate: Command) -> None:
    immunogate("profile", *BRIEF, *words).refused(2, said)


def test_a_source_without_faces_is_profiled_too(immunogate: Command) -> None:
    done = immunogate(
        "profile",
        *BRIEF,
        "--max-frames",
        "4",
        "--starts",
        "1",
        "--source",
        "synthetic://?frames=5",
        "--json",
    )
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert faults(document, SCHEMA) == []
    assert any("nobody was decided about" in warning for warning in document["warnings"])
    assert document["limits"] is None
    assert {"first work", "total"} <= set(document["cold_start"]["parts_ms"])
    assert "until a decision" not in document["cold_start"]["parts_ms"]
