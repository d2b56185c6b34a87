"""Detached Ed25519 signatures beside what they are over: who signed these very bytes, and for what.

The message that is signed is a line that names the purpose, then the bytes: a signature for one purpose is none for
another. A file may hold several signatures, so that keys can be exchanged one after the other.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from immunogate.errors import BundleError
from immunogate.files import read_bytes, sha256_of_bytes, write_whole
from immunogate.keys import ID_DIGITS, SIGNATURE_BYTES, PrivateKey, PublicKey
from immunogate.limits import parse_json

BUNDLE, ENGINE = "bundle manifest", "engine side-car"
"""Purposes."""

SCHEMA = 1
ALGORITHM = "Ed25519"
LARGEST_FILE = 64 << 10
MOST_SIGNATURES = 16
_KEYS = {"schema", "algorithm", "purpose", "signatures"}
_ENTRY_KEYS = {"key", "sha256", "signature"}


@dataclass(frozen=True)
class Signature:
    """One signature.

    Attributes:
        key: identifier of the public key that proves it.
        sha256: of the bytes it is over, to tell a stale signature from a false one; proves nothing.
        signature: 64 bytes.
    """

    key: str
    sha256: str
    signature: bytes


def signature_over(purpose: str, data: bytes, key: PrivateKey) -> Signature:
    """Sign."""
    return Signature(key.public.id, sha256_of_bytes(data), key.sign(_message(purpose, data)))


def write_signature(path: Path, purpose: str, added: Signature) -> int:
    """Add a signature to a file; those over other bytes go, since nothing is proven by them. Gives how many it holds.

    Raises:
        BundleError: what stands there is no file of signatures.
        UsageError: it can not be written.
    """
    held = read_signatures(path, purpose) if path.exists() else []
    kept = [item for item in held if item.key != added.key and item.sha256 == added.sha256]
    entries = [
        {"key": item.key, "sha256": item.sha256, "signature": base64.b64encode(item.signature).decode()}
        for item in [*kept, added][-MOST_SIGNATURES:]
    ]
    document = {"schema": SCHEMA, "algorithm": ALGORITHM, "purpose": purpose, "signatures": entries}
    text = json.dumps(document, indent=2) + "\n"
    write_whole(path, lambda to: to.write_text(text, encoding="utf-8"))
    return len(entries)


def read_signatures(path: Path, purpose: str) -> list[Signature]:
    """All signatures of a file.

    Raises:
        BundleError: it is cut short, damaged, of another version, or for another purpose.
        UsageError: it can not be read.
    """
    try:
        data = parse_json(read_bytes(path, LARGEST_FILE).decode("utf-8"))
        if not isinstance(data, dict) or set(data) != _KEYS:
            raise ValueError(f"expected the fields {', '.join(sorted(_KEYS))}")
        if (data["schema"], data["algorithm"], data["purpose"]) != (SCHEMA, ALGORITHM, purpose):
            raise ValueError(f"expected version {SCHEMA}, {ALGORITHM}, for a {purpose}")
        entries = data["signatures"]
        if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_SIGNATURES:
            raise ValueError(f"expected 1 to {MOST_SIGNATURES} signatures")
        return [_decoded(entry) for entry in entries]
    except ValueError as error:
        what = f"{path} is no file of signatures, or a damaged one: {error}"
        raise BundleError(what, "Do not use it; restore the file, or sign anew where the key is") from error


def proven_by(path: Path, purpose: str, data: bytes, trusted: Sequence[PublicKey]) -> PublicKey:
    """The first trusted key whose signature over ``data`` stands in the file.

    Raises:
        BundleError: no trusted key signed, or a signature of a trusted key does not hold.
    """
    by_id = {key.id: key for key in trusted}
    ours = [item for item in read_signatures(path, purpose) if item.key in by_id]
    if not ours:
        known = ", ".join(f"{key.id} ({key.origin})" for key in trusted)
        raise BundleError(
            f"{path} holds no signature of a trusted key; trusted are {known}",
            "Get it signed by one of these, or have whoever runs this gate trust the signer's public key",
        )
    for item in ours:
        if not by_id[item.key].proves(_message(purpose, data), item.signature):
            raise _false(path, purpose, item, stale=item.sha256 != sha256_of_bytes(data))
    return by_id[ours[0].key]


def _false(path: Path, purpose: str, item: Signature, *, stale: bool) -> BundleError:
    why = f"the {purpose} has changed since" if stale else "it or what it is over was changed"
    return BundleError(
        f"{path}: the signature of the trusted key {item.key} does not hold: {why}",
        "Do not use it; after a change of your own, such as a calibration, sign it anew: immunogate bundle sign "
        "BUNDLE --key KEY.pem",
    )


def _message(purpose: str, data: bytes) -> bytes:
    return f"immunogate {purpose} {SCHEMA}\n".encode() + data


def _decoded(entry: object) -> Signature:
    if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS or not all(isinstance(v, str) for v in entry.values()):
        raise ValueError(f"expected the fields {', '.join(sorted(_ENTRY_KEYS))} of each signature, all text")
    signature = base64.b64decode(entry["signature"], validate=True)
    if len(signature) != SIGNATURE_BYTES or len(entry["key"]) != ID_DIGITS:
        raise ValueError(f"expected {SIGNATURE_BYTES} bytes of signature and {ID_DIGITS} digits of a key")
    if base64.b64encode(signature).decode() != entry["signature"]:
        raise ValueError("a signature is written in another way than it would be")
    return Signature(entry["key"], entry["sha256"], signature)
