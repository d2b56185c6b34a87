"""Crops that are kept beside decisions, encrypted: AES-256 in Galois/Counter Mode (NIST SP 800-38D).

The chain holds the hash of what was encrypted, so a crop can be forgotten before its record is, and can not be
exchanged. Nonces are 96 random bits: a counter would repeat after a kill between encryption and commit, or in a copy
of the file, and a repeated nonce breaks this cipher. SP 800-38D allows 2^32 random ones for each key: at ten crops a
second, thirteen years. The table of crops also refuses a nonce that is there already.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from immunogate.errors import AuditError, InputError, MissingExtraError, UsageError
from immunogate.files import sha256_of_bytes
from immunogate.structs import CROP_SIZE, PIXELS, Pixels, expect_dtype, expect_shape

KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
FROM_ENVIRONMENT = "env:"
DEFAULT_VARIABLE = "IMMUNOGATE_EVIDENCE_KEY"
_KEY_ID, _BOUND = b"immunogate evidence key 1\0", b"immunogate evidence 1\0"


@dataclass(frozen=True)
class Sealed:
    """An encrypted crop.

    Attributes:
        key_id: names the key and says nothing about it.
        nonce: 12 bytes.
        data: ciphertext and tag.
    """

    key_id: str
    nonce: bytes
    data: bytes

    def mark(self) -> dict[str, str]:
        """What the chain says of it: key, and hash of nonce and ciphertext."""
        return {"key_id": self.key_id, "sha256": sha256_of_bytes(self.nonce + self.data)}


class EvidenceKey:
    """Encrypts and decrypts crops.

    Args:
        secret: 32 bytes.

    Raises:
        MissingExtraError: the package cryptography is not installed.
        ValueError: the secret is of another length.
    """

    def __init__(self, secret: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ModuleNotFoundError as error:
            raise MissingExtraError("cryptography", "gate") from error
        if len(secret) != KEY_BYTES:
            raise ValueError(f"key: expected {KEY_BYTES} bytes, got {len(secret)}")
        self.key_id = hashlib.sha256(_KEY_ID + secret).hexdigest()[:16]
        self._cipher = AESGCM(secret)

    def seal(self, crop: Pixels, decision_id: str) -> Sealed:
        """Encrypt a (112, 112) uint8 crop for one decision."""
        expect_shape("crop", crop, (CROP_SIZE, CROP_SIZE))
        expect_dtype("crop", crop, np.uint8)
        nonce = os.urandom(NONCE_BYTES)
        data = self._cipher.encrypt(nonce, crop.tobytes(), _BOUND + decision_id.encode())
        return Sealed(self.key_id, nonce, data)

    def open(self, sealed: Sealed, decision_id: str) -> Pixels:
        """The crop of that decision: (112, 112) uint8.

        Raises:
            AuditError: another key, another decision's crop, or a changed one.
        """
        from cryptography.exceptions import InvalidTag

        if sealed.key_id != self.key_id:
            raise AuditError(
                f"the crop of {decision_id} was encrypted with the key {sealed.key_id}, this one is {self.key_id}",
                "Give the key that the gate had then",
            )
        try:
            data = self._cipher.decrypt(sealed.nonce, sealed.data, _BOUND + decision_id.encode())
        except (InvalidTag, ValueError) as error:  # the latter for a nonce of an impossible length
            raise AuditError(f"the crop of {decision_id} was changed or belongs to another decision") from error
        if len(data) != PIXELS:
            raise AuditError(f"the crop of {decision_id} has {len(data)} bytes, expected {PIXELS}")
        return np.frombuffer(data, np.uint8).reshape(CROP_SIZE, CROP_SIZE)


def key_from(where: str) -> EvidenceKey:
    """The key in a file, or in the environment where ``where`` is ``env:NAME``: 64 hexadecimal digits.

    Raises:
        UsageError: there is none, or others than its owner may read the file.
        InputError: it is no key.
        MissingExtraError: the package cryptography is not installed.
    """
    if where.startswith(FROM_ENVIRONMENT):
        name = where.removeprefix(FROM_ENVIRONMENT) or DEFAULT_VARIABLE
        text = os.environ.get(name)
        if text is None:
            raise UsageError(f"the environment has no {name}", "Put 64 hexadecimal digits there, or name a file")
        return _key(text, name)
    return _key(_private_text(Path(where)), where)


def make_key(path: Path) -> None:
    """Write a new random key, for its owner to read.

    Raises:
        UsageError: there is a file of that name, or it can not be written.
    """
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(os.urandom(KEY_BYTES).hex() + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError as error:
        raise UsageError(f"{path} is there already", "A key that is written over opens no crop again") from error
    except OSError as error:
        raise UsageError(f"{path} can not be written: {error.strerror}") from error


def _private_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())  # of the file that is read, whatever the name says by then
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path} is no regular file", "Make a key: immunogate audit key FILE")
            if status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
                raise UsageError(
                    f"others than its owner can use {path} (mode {stat.S_IMODE(status.st_mode):o})",
                    f"Run: chmod 600 {path}",
                )
            return stream.read(4 * KEY_BYTES).decode("ascii", "replace")
    except OSError as error:
        mend = "Make a key: immunogate audit key FILE"
        raise UsageError(f"{path} can not be read: {error.strerror}", mend) from error


def _key(text: str, where: str) -> EvidenceKey:
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:  # the text itself is never shown
        raise InputError(f"{where} holds no key of {2 * KEY_BYTES} hexadecimal digits")
    return EvidenceKey(secret)
