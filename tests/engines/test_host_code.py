"""Engines that carry code, on a FAKE TensorRT: loaded only for a signed bundle, with a signature of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pairs_of_keys import Pair

from immunogate.bundle import Bundle, open_bundle, sign_bundle
from immunogate.engines.host_code import expect_trusted, sign_engines, signature_path
from immunogate.engines.record import EngineError, Flags
from immunogate.engines.store import read_record, record_path
from immunogate.export.engine.build import build_network
from immunogate.export.engine.builder import EngineBuilder
from immunogate.export.engine.plan import BuildOptions, plan
from immunogate.kernels.device import Device
from immunogate.runtime.runners import tensorrt as runner_module
from immunogate.runtime.runners.tensorrt import open_engine
from immunogate.trust import VARIABLE

pytest.importorskip("cryptography", reason="cryptography is not installed")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("keys") / "keys")


@pytest.fixture
def signed(tiny_bundle: Bundle, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """Opened under a policy that trusts the pair."""
    folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle"))
    sign_bundle(folder, pair.key())
    monkeypatch.setenv(VARIABLE, str(pair.public))
    return open_bundle(folder)


@pytest.fixture
def engines(fake_machine: Any, tiny_bundle: Bundle, here: Any, tmp_path: Path) -> Path:
    """A version compatible engine of the recogniser."""
    folder = tmp_path / "engines"
    for item in plan(tiny_bundle, BuildOptions(networks=("recogniser",))):
        build_network(EngineBuilder(fake_machine), tiny_bundle, item, Flags(version_compatible=True), here, folder)
    return folder


def refused(bundle: Bundle, engines: Path, device: Device, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        open_engine(bundle, "recogniser", device, engines)


def test_signed_on_both_sides_it_is_loaded_and_the_next_one_is_not(
    signed: Bundle, engines: Path, device: Device, pair: Pair, fake_machine: Any
) -> None:
    refused(signed, engines, device, r"needs a signed bundle and a signature of its own.*bundle sign .* --engines")
    assert sign_engines(signed, engines, pair.key()) == [signature_path(engines, "recogniser")]
    open_engine(signed, "recogniser", device, engines).close()
    runtime = runner_module._runtime(fake_machine)[0]
    assert runtime.engine_host_code_allowed is False
    carries = (engines / "recogniser.engine").read_bytes()
    assert runtime.deserialize_cuda_engine(carries) is None, "allowed for one plan only"


def test_an_unsigned_bundle_or_one_opened_without_the_demand(
    tiny_bundle: Bundle, signed: Bundle, engines: Path, device: Device, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_engines(signed, engines, pair.key())
    refused(tiny_bundle, engines, device, r"runs code that it carries.*asked for by --require-signature")
    monkeypatch.delenv(VARIABLE)
    refused(open_bundle(signed.folder), engines, device, "runs code that it carries")


def test_a_side_car_that_was_changed_after_it_was_signed(
    signed: Bundle, engines: Path, device: Device, pair: Pair
) -> None:
    sign_engines(signed, engines, pair.key())
    beside = record_path(engines, "recogniser")
    about = json.loads(beside.read_text())
    beside.write_text(json.dumps({**about, "engine_sha256": "0" * 64}))
    refused(signed, engines, device, "does not hold")
    beside.write_text(json.dumps(about))
    plan_file = engines / "recogniser.engine"
    plan_file.write_bytes(plan_file.read_bytes()[:-1] + b"!")
    refused(signed, engines, device, "does not have the hash in its side-car")


def test_a_side_car_that_hides_the_code(signed: Bundle, engines: Path, device: Device, fake_machine: Any) -> None:
    beside = record_path(engines, "recogniser")
    about = json.loads(beside.read_text())
    about["flags"]["version_compatible"] = False
    beside.write_text(json.dumps(about))
    refused(signed, engines, device, "TensorRT does not load the engine")


def test_another_key_another_network_and_nothing_to_sign(
    signed: Bundle, engines: Path, device: Device, pair: Pair, tmp_path: Path
) -> None:
    sign_engines(signed, engines, Pair(tmp_path / "other").key())
    refused(signed, engines, device, "no signature of a trusted key")
    beside = record_path(engines, "recogniser")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "onnx_sha256": "0" * 64}))
    with pytest.raises(EngineError, match="built from another bundle"):
        sign_engines(signed, engines, pair.key())
    refused(signed, engines, device, "built from another network than the signed bundle's")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EngineError, match="has no version compatible engine"):
        sign_engines(signed, tmp_path / "empty", pair.key())


def test_plain_engines_need_no_signature(
    tiny_bundle: Bundle, fake_machine: Any, here: Any, device: Device, tmp_path: Path
) -> None:
    for item in plan(tiny_bundle, BuildOptions(networks=("recogniser",))):
        build_network(EngineBuilder(fake_machine), tiny_bundle, item, Flags(), here, tmp_path)
    record = read_record(tmp_path, "recogniser")
    assert record is not None
    expect_trusted(tiny_bundle, tmp_path, record)
    open_engine(tiny_bundle, "recogniser", device, tmp_path).close()
