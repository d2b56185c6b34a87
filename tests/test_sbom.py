"""The bill of materials names what is installed, each once, and says what needs what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from immunogate.sbom import bill_of_materials

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def document() -> Any:
    return bill_of_materials()


def test_it_is_cyclonedx(document: Any) -> None:
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"])
    assert document["metadata"]["component"]["name"] == "immunogate"
    for component in document["components"]:
        assert {"type", "name", "version", "purl", "bom-ref", "scope"} <= set(component)
        assert component["purl"].startswith("pkg:pypi/")


def test_what_runs_a_gate_is_required_and_what_tests_it_is_optional(document: Any) -> None:
    scopes = {component["name"].lower(): component["scope"] for component in document["components"]}
    assert scopes["numpy"] == scopes["onnxruntime"] == "required"
    assert scopes["protobuf"] == "required"  # of onnxruntime
    assert scopes["pytest"] == "optional"
    (numpy,) = [item for item in document["components"] if item["name"] == "numpy"]
    assert numpy["version"] == version("numpy")
    assert numpy["licenses"]


def test_every_reference_is_there_once(document: Any) -> None:
    references = [item["bom-ref"] for item in (document["metadata"]["component"], *document["components"])]
    assert len(references) == len(set(references))
    assert {item["ref"] for item in document["dependencies"]} == set(references)
    assert {other for item in document["dependencies"] for other in item["dependsOn"]} <= set(references)


def test_the_serial_number_is_that_of_the_contents(document: Any) -> None:
    again = bill_of_materials()
    assert again["serialNumber"] == document["serialNumber"]
    assert bill_of_materials("numpy")["serialNumber"] != document["serialNumber"]


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from immunogate.cli import main

    assert main(["sbom"]) == 0
    assert json.loads(capsys.readouterr().out)["bomFormat"] == "CycloneDX"
    assert main(["sbom", "--out", str(tmp_path / "sbom.json")]) == 0
    assert json.loads((tmp_path / "sbom.json").read_text())["components"]
