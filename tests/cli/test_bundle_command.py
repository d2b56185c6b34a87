"""Keys, signatures and the demand for them, as a user meets them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import SIGNATURE_NAME, Bundle
from immunogate.keys import PASSPHRASE_VARIABLE
from immunogate.trust import VARIABLE

pytest.importorskip("cryptography", reason="cryptography is not installed")

Command = Callable[..., Any]
DRAWN = "synthetic://?frames=1&width=64&height=64"


@pytest.fixture
def keys(immunogate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    assert immunogate("bundle", "keygen", tmp_path / "keys").status == 0
    return tmp_path / "keys"


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle"))


@pytest.fixture
def commands(copied: Path, empty_gallery: Path, tmp_path: Path) -> list[tuple[Any, ...]]:
    """Every command that opens a bundle."""
    faces = tmp_path / "faces.npz"
    draw = np.random.default_rng(1)
    np.savez(faces, images=draw.integers(0, 256, (8, 112, 112), np.uint8), identities=np.array(list("aabbccdd")))
    (tmp_path / "faces" / "ann").mkdir(parents=True)
    (tmp_path / "faces" / "ann" / "1.png").write_bytes(b"no picture")
    return [
        ("inspect", copied),
        ("run", "--bundle", copied, "--gallery", empty_gallery, "--source", DRAWN),
        ("enroll", "--bundle", copied, "--gallery", tmp_path / "new.db", tmp_path / "faces"),
        ("verify", copied, "--faces", faces),
        ("build", copied, "--dry-run"),
        ("calibrate", "threshold", copied, faces),
        ("bundle", "verify", copied),
    ]


def test_from_a_new_key_to_a_bundle_that_is_trusted(immunogate: Command, keys: Path, copied: Path) -> None:
    signed = immunogate("bundle", "sign", copied, "--key", keys / "signing_key.pem", "--json")
    verified = immunogate("bundle", "verify", copied, "--key", keys / "public_key.pem", "--json")
    said, found = json.loads(signed.out), json.loads(verified.out)
    assert (said["signatures"], said["engines"], found["passed"]) == (1, [], True)
    assert found["signed_by"] == [said["key"]]
    assert found["bundle"] == said["bundle"]
    in_words = immunogate("bundle", "verify", copied, "--key", keys / "public_key.pem").out
    assert said["key"] in in_words
    inspected = immunogate("inspect", copied, "--require-signature", keys / "public_key.pem")
    assert inspected.status == 0


def test_no_command_opens_an_unsigned_bundle_under_the_policy(
    immunogate: Command, keys: Path, copied: Path, commands: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifest = (copied / "manifest.json").read_bytes()
    monkeypatch.setenv(VARIABLE, str(keys / "public_key.pem"))
    for command in commands:
        done = immunogate(*command)
        done.refused(1, str(copied), "is not signed", VARIABLE)
        assert done.out == ""
    assert (copied / "manifest.json").read_bytes() == manifest
    assert not (tmp_path / "new.db").exists()


def test_the_flag_asks_for_the_signature_too(immunogate: Command, keys: Path, commands: Any) -> None:
    for command in commands:
        if command[0] in ("inspect", "run", "enroll", "verify", "build"):
            done = immunogate(*command, "--require-signature", keys / "public_key.pem")
            done.refused(1, "is not signed", "--require-signature")


def test_a_signed_bundle_runs_under_the_policy_until_it_is_changed(
    immunogate: Command, keys: Path, copied: Path, commands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    immunogate("bundle", "sign", copied, "--key", keys / "signing_key.pem")
    monkeypatch.setenv(VARIABLE, str(keys / "public_key.pem"))
    inspect, run, calibrate = commands[0], commands[1], commands[5]
    assert immunogate(*inspect).status == 0
    assert immunogate(*run).status == 0
    before = (copied / "manifest.json").read_bytes()
    calibrated = immunogate(*calibrate)
    assert calibrated.status != 0
    assert (copied / "manifest.json").read_bytes() == before
    signature = copied / SIGNATURE_NAME
    signature.write_bytes(signature.read_bytes()[:-20])
    immunogate(*run).refused(1, SIGNATURE_NAME, "damaged")
    signature.unlink()
    immunogate(*run).refused(1, "is not signed")


def test_passphrases_come_from_the_environment_or_a_file(
    immunogate: Command, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("open sesame")
    assert json.loads(immunogate("bundle", "keygen", tmp_path / "k", "--passphrase-file", secret, "--json").out)[
        "encrypted"
    ]
    sign = ("bundle", "sign", copied, "--key", tmp_path / "k" / "signing_key.pem")
    immunogate(*sign).refused(2, "is encrypted", PASSPHRASE_VARIABLE)
    assert not (copied / SIGNATURE_NAME).exists()
    assert immunogate(*sign, "--passphrase-file", secret).status == 0
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "open sesame")
    assert immunogate(*sign).status == 0


def test_wrong_uses(immunogate: Command, keys: Path, copied: Path, tmp_path: Path) -> None:
    immunogate("bundle", "verify", copied).refused(2, "no key to trust is named", VARIABLE)
    immunogate("bundle", "verify", copied, "--key", tmp_path / "none.pem").refused(2, "none.pem")
    immunogate("bundle", "keygen", keys).refused(2, "is there already")
    (keys / "signing_key.pem").chmod(0o640)
    immunogate("bundle", "sign", copied, "--key", keys / "signing_key.pem").refused(2, "chmod 600")
    immunogate("bundle", "sign", tmp_path, "--key", keys / "signing_key.pem").refused(2, "chmod 600")


def test_a_signature_kept_elsewhere(immunogate: Command, keys: Path, copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "detached.json"
    assert immunogate("bundle", "sign", copied, "--key", keys / "signing_key.pem", "--out", out).status == 0
    immunogate("bundle", "verify", copied, "--key", keys / "public_key.pem").refused(1, "is not signed")
    shutil.copy(out, copied / SIGNATURE_NAME)
    assert immunogate("bundle", "verify", copied, "--key", keys / "public_key.pem").status == 0
