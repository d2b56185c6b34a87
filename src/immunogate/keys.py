"""Keys that sign bundles and keys that a gate trusts: Ed25519 (RFC 8032), in PEM files (RFC 7468, PKCS #8, X.509).

The only file that imports `cryptography`, and only once a key is used.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from immunogate.errors import InputError, MissingExtraError, UsageError
from immunogate.files import read_bytes, sha256_of_bytes

PASSPHRASE_VARIABLE = "IMMUNOGATE_KEY_PASSPHRASE"  # noqa: S105 (the name of a variable)
"""Environment variable that holds the passphrase of a signing key."""

PRIVATE_NAME, PUBLIC_NAME = "signing_key.pem", "public_key.pem"
LARGEST_KEY = 16 << 10
"""Most bytes of a key file, and of a file with a passphrase."""

ID_DIGITS = 32
SIGNATURE_BYTES = 64
_NO_KEY = "Make a pair: immunogate bundle keygen FOLDER"


@dataclass(frozen=True)
class PublicKey:
    """A key that proves signatures.

    Attributes:
        raw: its 32 bytes.
        origin: where it was read, for people.
    """

    raw: bytes
    origin: str = ""

    @property
    def id(self) -> str:
        """The first 32 hexadecimal digits of the SHA-256 of its bytes: by this name it is found, not trusted."""
        return sha256_of_bytes(self.raw)[:ID_DIGITS]

    def proves(self, message: bytes, signature: bytes) -> bool:
        """Whether the holder of the private key signed this message.

        Raises:
            MissingExtraError: `cryptography` is not installed.
        """
        crypto = _cryptography()
        try:
            crypto.ed25519.Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (crypto.InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, eq=False)
class PrivateKey:
    """A key that signs; its bytes stay in `cryptography`'s object."""

    held: Any

    @property
    def public(self) -> PublicKey:
        """What proves its signatures."""
        return PublicKey(self.held.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        signature: bytes = self.held.sign(message)
        return signature


def make_keys(folder: Path, passphrase: bytes | None = None) -> PublicKey:
    """Make a pair: `PRIVATE_NAME`, for its owner alone, and `PUBLIC_NAME`, for every gate.

    Args:
        folder: where to; made for its owner alone where it is not there.
        passphrase: encrypts the private key; None leaves it as it is.

    Raises:
        UsageError: a key of that name is there already, or the folder can not be written.
        MissingExtraError: `cryptography` is not installed.
    """
    crypto = _cryptography()
    form = crypto.serialization
    held = crypto.ed25519.Ed25519PrivateKey.generate()
    locked = form.BestAvailableEncryption(passphrase) if passphrase else form.NoEncryption()
    private = held.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked)
    public = held.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as undone:
            for name, content, mode in ((PRIVATE_NAME, private, 0o600), (PUBLIC_NAME, public, 0o644)):
                _write_new(folder / name, content, mode, undone)
            undone.pop_all()
    except FileExistsError as error:
        raise UsageError(
            f"{error.filename} is there already", "Name another folder: keys are never replaced"
        ) from error
    except OSError as error:
        raise UsageError(f"{folder} can not be written: {error.strerror}", "Name another folder") from error
    return PrivateKey(held).public


def _write_new(path: Path, content: bytes, mode: int, undone: ExitStack) -> None:
    """Never readable by others, not even for a moment; taken away again unless all is well."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    undone.callback(path.unlink, missing_ok=True)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def load_private_key(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Read a signing key.

    Raises:
        UsageError: it is not there, others may read it, or it needs a passphrase and has none or a wrong one.
        InputError: it is no Ed25519 key in PEM.
        MissingExtraError: `cryptography` is not installed.
    """
    expect_for_owner_alone(path)
    data = read_bytes(path, LARGEST_KEY)
    crypto = _cryptography()
    try:
        held = crypto.serialization.load_pem_private_key(data, passphrase)
    except TypeError as error:  # given and not needed, or the other way round
        if passphrase is None:
            mend = f"Set {PASSPHRASE_VARIABLE}, or give --passphrase-file FILE"
            raise UsageError(f"{path} is encrypted", mend) from error
        raise UsageError(f"{path} is not encrypted, and a passphrase was given", "Give none") from error
    except Exception as error:  # of several kinds, over damaged bytes and wrong passphrases alike
        raise InputError(f"{path} is no private key in PEM, or the passphrase is another", _NO_KEY) from error
    if not isinstance(held, crypto.ed25519.Ed25519PrivateKey):
        raise InputError(f"{path} is a key of another kind than Ed25519", _NO_KEY)
    return PrivateKey(held)


def load_public_key(path: Path) -> PublicKey:
    """Read a key that is to be trusted.

    Raises:
        UsageError: it is not there, or others may exchange it.
        InputError: it is no public Ed25519 key in PEM.
        MissingExtraError: `cryptography` is not installed.
    """
    data = read_bytes(path, LARGEST_KEY)
    _expect_not_exchanged(path)
    crypto = _cryptography()
    try:
        key = crypto.serialization.load_pem_public_key(data)
    except Exception as error:  # of several kinds, over damaged bytes
        raise InputError(f"{path} is no public key in PEM", f"Give the {PUBLIC_NAME} of the pair") from error
    if not isinstance(key, crypto.ed25519.Ed25519PublicKey):
        raise InputError(f"{path} is a key of another kind than Ed25519", _NO_KEY)
    return PublicKey(key.public_bytes_raw(), str(path))


def passphrase_from(file: Path | None) -> bytes | None:
    """The passphrase: the first line of ``file``, else that of `PASSPHRASE_VARIABLE`, else None.

    Raises:
        UsageError: the file is not there, is empty, or others may read it.
    """
    if file is None:
        return os.environ.get(PASSPHRASE_VARIABLE, "").encode() or None
    expect_for_owner_alone(file)
    first = read_bytes(file, LARGEST_KEY).split(b"\n", 1)[0].rstrip(b"\r")
    if not first:
        raise UsageError(f"{file} holds no passphrase", "Write it into the first line")
    return first


def expect_for_owner_alone(path: Path) -> None:
    """Refuse a secret that others may read.

    Raises:
        UsageError: they may, or it is not there; it says what to do.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{path} can not be read: {error.strerror}", _NO_KEY) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"{path} can be used by others than its owner (mode {stat.S_IMODE(mode):04o})", f"Run: chmod 600 {path}"
        )


def _expect_not_exchanged(path: Path) -> None:
    """Whoever may write a trusted key, or put another in its place, decides what the gate trusts."""
    for item in (path, path.parent):
        about = item.stat()
        sticky = item is not path and about.st_mode & stat.S_ISVTX
        if about.st_uid not in (0, os.getuid()):
            raise UsageError(f"{item} belongs to another user, so it is not trusted", f"Run: chown root {item}")
        if about.st_mode & stat.S_IWOTH and not sticky:
            raise UsageError(f"{item} can be written by every user, so it is not trusted", f"Run: chmod o-w {item}")


@dataclass(frozen=True)
class _Cryptography:
    ed25519: Any
    serialization: Any
    InvalidSignature: Any


def _cryptography() -> _Cryptography:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtraError("cryptography", "gate") from error
    return _Cryptography(ed25519, serialization, InvalidSignature)
