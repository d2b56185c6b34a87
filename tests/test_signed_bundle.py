"""Where signatures are asked for, one bit, one file, one link more or less and the bundle is not opened."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pairs_of_keys import Pair

from immunogate.bundle import SIGNATURE_NAME, Bundle, open_bundle, sign_bundle, write_manifest
from immunogate.errors import BundleError, ImmunogateError, InputError, UsageError
from immunogate.keys import load_public_key
from immunogate.manifest import MANIFEST_NAME
from immunogate.signature import BUNDLE, ENGINE, proven_by, read_signatures, signature_over, write_signature
from immunogate.trust import VARIABLE, signatures_required

pytest.importorskip("cryptography", reason="cryptography is not installed")

Asked = Callable[..., None]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("a") / "keys")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("b") / "keys")


@pytest.fixture
def signed(tiny_bundle: Bundle, pair: Pair, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle"))
    sign_bundle(folder, pair.key())
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Asked:
    """The machine's policy: by default it trusts the first pair."""

    def ask(*paths: Path) -> None:
        monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, paths)))

    ask(pair.public)
    return ask


def opened(folder: Path) -> Bundle:
    bundle = open_bundle(folder)
    bundle.check()
    return bundle


def refused(folder: Path, *words: str, kind: type[ImmunogateError] = BundleError) -> None:
    with pytest.raises(kind) as caught:
        opened(folder)
    for word in words:
        assert word in str(caught.value)


def test_a_signed_bundle_opens_and_says_by_whom(signed: Path, asked: Asked, pair: Pair) -> None:
    bundle = opened(signed)
    assert bundle.signed_by == (pair.key().public.id,)
    assert bundle.calibration().status == "measured"


def test_without_a_demand_signatures_are_not_looked_at(signed: Path, tiny_bundle: Bundle) -> None:
    (signed / SIGNATURE_NAME).write_text("nonsense")
    assert opened(signed).signed_by == opened(tiny_bundle.folder).signed_by == ()


def test_every_bit_of_the_manifest_counts(signed: Path, pair: Pair) -> None:
    whole, keys = (signed / MANIFEST_NAME).read_bytes(), [load_public_key(pair.public)]
    proven_by(signed / SIGNATURE_NAME, BUNDLE, whole, keys)
    for at in range(len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]
        with pytest.raises(BundleError, match="has changed since"):
            proven_by(signed / SIGNATURE_NAME, BUNDLE, changed, keys)


@pytest.mark.parametrize("name", [MANIFEST_NAME, SIGNATURE_NAME])
def test_a_flipped_bit_in_manifest_or_signature(signed: Path, asked: Asked, name: str) -> None:
    whole = (signed / name).read_bytes()
    value = whole.index(b'"signature": "') + 14 if name == SIGNATURE_NAME else 0
    places = range(value, value + 88) if name == SIGNATURE_NAME else range(0, len(whole), 50)
    for at in places:
        (signed / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BundleError):
            open_bundle(signed)
    (signed / name).write_bytes(whole)
    opened(signed)


@pytest.mark.parametrize("name", ["analyzer.onnx", "basis.npz", "detector.onnx", "recogniser.onnx"])
def test_a_flipped_bit_anywhere_in_a_file(signed: Path, asked: Asked, name: str) -> None:
    path = signed / name
    whole = path.read_bytes()
    for at in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused(signed, name, "does not have the hash")


def test_a_changed_file_with_its_new_hash_in_the_manifest(signed: Path, asked: Asked) -> None:
    manifest = (signed / MANIFEST_NAME).read_text().replace('"threshold": 0.5', '"threshold": 0.1', 1)
    (signed / MANIFEST_NAME).write_text(manifest)
    refused(signed, SIGNATURE_NAME, "has changed since", "immunogate bundle sign")


def test_removed_and_added_files(signed: Path, asked: Asked) -> None:
    for name in ("extra.onnx", ".hidden", "folder/inside"):
        path = signed / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        refused(signed, name.partition("/")[0], "not in the manifest")
        path.unlink()
        if path.parent != signed:
            path.parent.rmdir()
    (signed / "analyzer.onnx").unlink()
    refused(signed, "analyzer.onnx", "missing")


def test_downgrades(signed: Path, asked: Asked, tiny_bundle: Bundle) -> None:
    refused(tiny_bundle.folder, "is not signed", VARIABLE)
    signature = (signed / SIGNATURE_NAME).read_text()
    (signed / SIGNATURE_NAME).unlink()
    refused(signed, "is not signed", "immunogate bundle sign")
    for other in ({"schema": 0}, {"algorithm": "none"}, {"signatures": []}, {"purpose": ENGINE}):
        (signed / SIGNATURE_NAME).write_text(json.dumps({**json.loads(signature), **other}))
        refused(signed, SIGNATURE_NAME)


def test_a_truncated_signature(signed: Path, asked: Asked) -> None:
    whole = (signed / SIGNATURE_NAME).read_bytes()
    for length in range(len(whole) - 2):
        (signed / SIGNATURE_NAME).write_bytes(whole[:length])
        with pytest.raises(BundleError, match=r"signature\.json is no file of signatures"):
            open_bundle(signed)


def test_another_key(signed: Path, asked: Asked, other: Pair, pair: Pair) -> None:
    asked(other.public)
    refused(signed, "no signature of a trusted key", other.key().public.id)
    sign_bundle(signed, other.key())
    assert opened(signed).signed_by == (other.key().public.id,)
    asked(pair.public)
    assert opened(signed).signed_by == (pair.key().public.id,)


def test_a_signature_under_the_name_of_a_trusted_key(signed: Path, asked: Asked, other: Pair, pair: Pair) -> None:
    data = (signed / MANIFEST_NAME).read_bytes()
    (signed / SIGNATURE_NAME).unlink()
    forged = replace(signature_over(BUNDLE, data, other.key()), key=pair.key().public.id)
    write_signature(signed / SIGNATURE_NAME, BUNDLE, forged)
    refused(signed, "does not hold", "was changed")


def test_a_signature_for_another_purpose(signed: Path, asked: Asked, pair: Pair) -> None:
    data = (signed / MANIFEST_NAME).read_bytes()
    (signed / SIGNATURE_NAME).unlink()
    write_signature(signed / SIGNATURE_NAME, BUNDLE, signature_over(ENGINE, data, pair.key()))
    refused(signed, "does not hold")


@pytest.mark.parametrize("name", [MANIFEST_NAME, SIGNATURE_NAME, "basis.npz"])
def test_links(signed: Path, asked: Asked, tmp_path: Path, name: str) -> None:
    (signed / name).rename(tmp_path / name)
    (signed / name).symlink_to(tmp_path / name)
    refused(signed, name, "is a link")


def test_a_folder_reached_through_a_link_is_fine(signed: Path, asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(signed)
    opened(tmp_path / "current")


def test_nothing_of_the_manifest_is_parsed_before_the_signature_holds(
    signed: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("immunogate.bundle.Manifest.from_json", lambda text: pytest.fail("it was parsed"))
    (signed / MANIFEST_NAME).write_bytes((signed / MANIFEST_NAME).read_bytes() + b" ")
    refused(signed, "does not hold")


def test_a_calibration_ends_the_signature_and_says_so(
    signed: Path, pair: Pair, caplog: pytest.LogCaptureFixture, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    bundle = opened(signed)
    bundle.with_calibration(replace(bundle.calibration(), alarm=0.123))
    assert "immunogate bundle sign" in caplog.text
    asked(pair.public)
    refused(signed, "has changed since", "after a change of your own, such as a calibration, sign it anew")
    sign_bundle(signed, pair.key())
    assert opened(signed).calibration().alarm == 0.123
    assert len(read_signatures(signed / SIGNATURE_NAME, BUNDLE)) == 1


def test_under_the_policy_no_unsigned_manifest_is_written(signed: Path, asked: Asked) -> None:
    bundle, before = opened(signed), (signed / MANIFEST_NAME).read_bytes()
    with pytest.raises(UsageError, match="signatures are asked for here"):
        bundle.with_calibration(replace(bundle.calibration(), alarm=0.5))
    with pytest.raises(UsageError, match=VARIABLE):
        write_manifest(signed, bundle.manifest)
    assert (signed / MANIFEST_NAME).read_bytes() == before


def test_a_damaged_bundle_is_not_signed(signed: Path, other: Pair, tmp_path: Path) -> None:
    before = (signed / SIGNATURE_NAME).read_bytes()
    (signed / "extra").touch()
    with pytest.raises(BundleError, match="extra"):
        sign_bundle(signed, other.key())
    (signed / "extra").unlink()
    (signed / "basis.npz").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"basis\.npz"):
        sign_bundle(signed, other.key())
    assert (signed / SIGNATURE_NAME).read_bytes() == before


def test_keys_are_exchanged_one_after_the_other(signed: Path, asked: Asked, pair: Pair, other: Pair) -> None:
    sign_bundle(signed, other.key())
    for trusted in ((pair.public,), (pair.public, other.public), (other.public,)):
        asked(*trusted)
        opened(signed)


def test_a_folder_of_keys(signed: Path, asked: Asked, pair: Pair, other: Pair, tmp_path: Path) -> None:
    folder = tmp_path / "trusted"
    folder.mkdir()
    asked(folder)
    refused(signed, "names 0 keys", kind=UsageError)
    shutil.copy(other.public, folder / "new.pem")
    refused(signed, "no signature of a trusted key")
    shutil.copy(pair.public, folder / "old.pem")
    opened(signed)


def test_a_flag_asks_for_more_and_never_for_less(signed: Path, asked: Asked, pair: Pair, other: Pair) -> None:
    with signatures_required([other.public]):
        refused(signed, "no signature of a trusted key", other.key().public.id)
        sign_bundle(signed, other.key())
        assert opened(signed).signed_by == (other.key().public.id, pair.key().public.id)
    (signed / SIGNATURE_NAME).unlink()
    sign_bundle(signed, other.key())
    with signatures_required([other.public]):
        refused(signed, "no signature of a trusted key")  # the machine's own key still has to
    asked(other.public)
    opened(signed)


@pytest.mark.parametrize("value", ["", ":", "/nowhere/key.pem"])
def test_a_policy_that_names_no_key_opens_nothing(signed: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    refused(signed, kind=UsageError)


def test_a_policy_that_names_something_else_opens_nothing(signed: Path, asked: Asked) -> None:
    asked(signed / MANIFEST_NAME)
    refused(signed, "no public key", kind=InputError)


def test_threads_are_under_the_same_demand(signed: Path, other: Pair) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def look(folder: Any) -> str:
        try:
            return ",".join(open_bundle(folder).signed_by)
        except BundleError as error:
            return error.what

    with signatures_required([other.public]), ThreadPoolExecutor(1) as pool:
        assert "no signature of a trusted key" in pool.submit(look, signed).result()
