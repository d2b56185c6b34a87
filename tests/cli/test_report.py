"""``immunogate report``: a report drawn again from its document, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_document import made_up_document

from immunogate.calib.robustness.document import write_document
from immunogate.files import sha256_of_file

Command = Callable[..., Any]


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "robustness.json"
    write_document(made_up_document(), path)
    return path


def test_a_report_stands_beside_its_document(document: Path, immunogate: Command) -> None:
    done = immunogate("report", document)
    out = document.with_suffix(".html")
    assert (done.status, done.out) == (0, f"{out}\n")
    assert "WEAK" in done.err
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_as_json_it_says_what_to_sign(document: Path, tmp_path: Path, immunogate: Command) -> None:
    out = tmp_path / "new" / "report.html"
    done = immunogate("report", document, "--out", out, "--json")
    facts = json.loads(done.out)
    assert facts["status"] == "WEAK"
    assert facts["report"] == str(out)
    assert facts["report_sha256"] == sha256_of_file(out)
    assert facts["document_sha256"] in out.read_text(encoding="utf-8")


def test_the_hash_of_the_document_is_of_its_values_and_not_of_its_layout(document: Path, immunogate: Command) -> None:
    first = json.loads(immunogate("report", document, "--json").out)
    plain = json.loads(document.read_text(encoding="utf-8"))
    document.write_text(json.dumps(dict(reversed(plain.items()))), encoding="utf-8")
    assert json.loads(immunogate("report", document, "--json").out) == first
    plain["setting"]["seed"] += 1
    document.write_text(json.dumps(plain), encoding="utf-8")
    again = json.loads(immunogate("report", document, "--json").out)
    assert again["document_sha256"] != first["document_sha256"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "no JSON"), ("[1, 2]", "expected an object"), ('{"a": 1}', "field"), ("\xff", "no JSON"),
        ("[" * 100000, "JSON"), ('{"schema_version": NaN}', "field"), ("1" * 5000, "JSON"),
    ],
    ids=["empty", "a list", "another", "no text", "too deep", "not a number", "too long"],
)  # fmt: skip
def test_a_file_that_is_no_document_is_refused(tmp_path: Path, immunogate: Command, content: str, word: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(content.encode("latin-1"))
    immunogate("report", path).refused(2, "wrong.json", word)
    assert not path.with_suffix(".html").exists()


@pytest.mark.parametrize(
    ("path", "value"),
    [(("seconds",), 10**400), (("setting", "seed"), 10**4299), (("seconds",), 1e308), (("rows",), [None])],
    ids=["a float too large", "an integer very large", "a float very large", "no row"],
)
def test_numbers_without_measure_are_no_traceback(
    document: Path, immunogate: Command, path: tuple[str, ...], value: Any
) -> None:
    plain = json.loads(document.read_text(encoding="utf-8"))
    part = plain
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    document.write_text(json.dumps(plain), encoding="utf-8")
    done = immunogate("report", document)
    assert done.status in (0, 2)
    assert "Traceback" not in done.err


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path, immunogate: Command) -> None:
    immunogate("report", tmp_path / "none.json").refused(2, "none.json")
    large = tmp_path / "large.json"
    with large.open("wb") as stream:
        stream.truncate((1 << 28) + 1)
    immunogate("report", large).refused(2, "large.json", "limit")


def test_the_document_is_not_written_over(document: Path, immunogate: Command) -> None:
    before = document.read_bytes()
    immunogate("report", document, "--out", document).refused(2, "the document itself")
    page = document.rename(document.with_suffix(".html"))
    immunogate("report", page).refused(2, "the document itself")
    assert page.read_bytes() == before
