"""Key files: what is written, who may read it, and what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from pairs_of_keys import Pair

from immunogate import keys
from immunogate.errors import ImmunogateError, InputError, MissingExtraError, UsageError
from immunogate.keys import (
    PASSPHRASE_VARIABLE,
    PublicKey,
    load_private_key,
    load_public_key,
    make_keys,
    passphrase_from,
)

pytest.importorskip("cryptography", reason="cryptography is not installed")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path / "keys")


def test_a_known_answer_of_rfc_8032() -> None:
    """Section 7.1, test 2: the message is one byte, 0x72."""
    public = PublicKey(bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"))
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert public.proves(b"\x72", signature)
    assert not public.proves(b"\x73", signature)
    assert not public.proves(b"\x72", signature[:-1])


def test_a_pair_proves_its_own_signatures_and_no_others(pair: Pair, tmp_path: Path) -> None:
    public = load_public_key(pair.public)
    assert public.proves(b"message", pair.key().sign(b"message"))
    assert public.id == pair.key().public.id
    other = Pair(tmp_path / "other")
    assert not public.proves(b"message", other.key().sign(b"message"))
    assert other.key().public.id != public.id


def test_the_private_key_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        pair = Pair(tmp_path / "new" / "keys")
    finally:
        os.umask(before)
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o600
    assert stat.S_IMODE(pair.private.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_a_private_key_that_others_may_use_is_refused(pair: Pair, mode: int) -> None:
    pair.private.chmod(mode)
    with pytest.raises(UsageError, match=rf"mode {mode:04o}.*chmod 600"):
        pair.key()


def test_a_trusted_key_that_others_may_exchange_is_refused(pair: Pair) -> None:
    pair.public.chmod(0o646)
    with pytest.raises(UsageError, match=r"written by every user.*chmod o-w"):
        load_public_key(pair.public)
    pair.public.chmod(0o644)
    pair.public.parent.chmod(0o757)
    with pytest.raises(UsageError, match="written by every user"):
        load_public_key(pair.public)
    pair.public.parent.chmod(0o1777)  # as /tmp: others may not exchange what is not theirs
    load_public_key(pair.public)


def test_keys_are_never_replaced_and_nothing_is_left_half_written(pair: Pair, tmp_path: Path) -> None:
    content = pair.private.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        make_keys(pair.private.parent)
    assert pair.private.read_bytes() == content
    folder = tmp_path / "second"
    folder.mkdir()
    (folder / keys.PUBLIC_NAME).write_text("mine")
    with pytest.raises(UsageError, match=r"public_key\.pem is there already"):
        make_keys(folder)
    assert [path.name for path in folder.iterdir()] == [keys.PUBLIC_NAME]


def test_passphrases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    with pytest.raises(UsageError, match="holds no passphrase"):
        passphrase_from(secret)
    secret.write_text("open sesame\nand no more\n")
    assert passphrase_from(secret) == b"open sesame"
    secret.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        passphrase_from(secret)
    assert passphrase_from(None) is None
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "other")
    assert passphrase_from(None) == b"other"


def test_an_encrypted_key_needs_its_passphrase(pair: Pair, tmp_path: Path) -> None:
    make_keys(tmp_path / "locked", b"open sesame")
    path = tmp_path / "locked" / keys.PRIVATE_NAME
    assert b"ENCRYPTED" in path.read_bytes()
    assert load_private_key(path, b"open sesame").sign(b"x")
    with pytest.raises(UsageError, match=rf"is encrypted.*{PASSPHRASE_VARIABLE}.*--passphrase-file"):
        load_private_key(path)
    with pytest.raises(InputError, match="passphrase is another"):
        load_private_key(path, b"wrong")
    with pytest.raises(UsageError, match="is not encrypted, and a passphrase was given"):
        load_private_key(pair.private, b"open sesame")


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_files_that_are_no_keys(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k.pem"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(InputError, match="no private key"):
        load_private_key(path)
    with pytest.raises(InputError, match="no public key"):
        load_public_key(path)


def test_keys_of_other_kinds_and_halves_in_each_others_place(pair: Pair, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    curve = ec.generate_private_key(ec.SECP256R1())
    form = serialization
    path = tmp_path / "curve.pem"
    path.touch(mode=0o600)
    path.write_bytes(curve.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    with pytest.raises(InputError, match="another kind than Ed25519"):
        load_private_key(path)
    path.write_bytes(curve.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InputError, match="another kind than Ed25519"):
        load_public_key(path)
    with pytest.raises(InputError, match="no public key"):
        load_public_key(pair.private)
    with pytest.raises(ImmunogateError, match="chmod 600"):
        load_private_key(pair.public)


def test_without_cryptography_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.exceptions", None)
    with pytest.raises(MissingExtraError, match=r"immunogate\[gate\]"):
        make_keys(tmp_path)
