"""A bundle: the folder that holds everything a gate needs, every file verified before it is used.

Files are read once; the bytes that were hashed are the bytes that are loaded, so nothing can be exchanged between
the check and the use. Where signatures are asked for (`immunogate.trust`), `open_bundle` is the one place that sees to
it: the signature is over the manifest, the manifest holds every file's hash and the calibration.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from immunogate.errors import BundleError, ImmunogateError, UsageError
from immunogate.files import read_bytes, sha256_of_bytes, write_whole
from immunogate.keys import PrivateKey
from immunogate.manifest import MANIFEST_NAME, Calibration, Manifest
from immunogate.signature import BUNDLE, proven_by, signature_over, write_signature
from immunogate.trust import VARIABLE, demands, is_demanded

_log = logging.getLogger(__name__)

SIGNATURE_NAME = "signature.json"
MANIFEST_LIMIT = 1 << 20
"""Largest manifest that is read, in bytes."""

FILE_LIMIT = 1 << 31
"""Largest file of a bundle, in bytes; a Protocol Buffers message, and so an ONNX file, can not be larger."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself.
        sha256: hash of the manifest file, which pins all others.
        signed_by: identifiers of the trusted keys whose signatures were asked for and hold; empty where none were.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    signed_by: tuple[str, ...] = ()

    def read(self, name: str) -> bytes:
        """The verified content of a listed file.

        Raises:
            BundleError: the file is missing, its length or hash is not what the manifest says, or it is a link in a
                bundle whose signature was asked for; it is named.
        """
        entry = self.manifest.files[name]
        path = self.folder / name
        if not path.is_file():
            raise BundleError(f"{path} is missing from the bundle", "Export the bundle again or restore the file")
        if self.signed_by:
            _expect_no_link(path)
        try:
            data = read_bytes(path, min(max(entry.bytes, 1), FILE_LIMIT))
        except ImmunogateError as error:
            raise BundleError(f"{error.what} (its length in the manifest is {entry.bytes:,})") from error
        if len(data) != entry.bytes:
            raise BundleError(
                f"{path} has {len(data):,} bytes, its length in the manifest is {entry.bytes:,}",
                "The file was cut short or changed: do not use it; export the bundle again or restore the file",
            )
        actual = sha256_of_bytes(data)
        if actual != entry.sha256:
            raise BundleError(
                f"{path} does not have the hash in {MANIFEST_NAME}: expected {entry.sha256}, got {actual}",
                "The file was damaged or changed: do not use it; export the bundle again or restore the file",
            )
        return data

    def check(self) -> None:
        """Verify every listed file.

        Raises:
            BundleError: as `read`.
        """
        for name in self.manifest.files:
            self.read(name)

    def calibration(self) -> Calibration:
        """The limits to decide by.

        Raises:
            BundleError: there are none, or they were measured on other files or settings than the bundle has now.
        """
        mend = f"Calibrate it: immunogate calibrate threshold {self.folder} FACES.npz"
        calibration = self.manifest.calibration
        if calibration is None:
            raise BundleError(f"the bundle {self.folder} has no threshold", mend)
        if calibration.status == "measured" and calibration.measured_on != self.manifest.embedding_hash():
            raise BundleError(f"the calibration of {self.folder} was measured on other files or settings", mend)
        return calibration

    def with_calibration(self, calibration: Calibration) -> Bundle:
        """Write the calibration into the manifest and open the bundle anew."""
        manifest = replace(self.manifest, calibration=calibration)
        write_manifest(self.folder, manifest)
        return open_bundle(self.folder)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, whole or not at all. A signature of the one before does not hold any more.

    Raises:
        UsageError: this process opens signed bundles only, and would make one that is not.
    """
    if is_demanded():
        raise UsageError(
            f"{folder / MANIFEST_NAME} is not written: signatures are asked for here, and what is written has none",
            f"Make and calibrate bundles where {VARIABLE} is not set, then sign them: immunogate bundle sign {folder} "
            "--key KEY.pem",
        )
    write_whole(folder / MANIFEST_NAME, lambda path: path.write_text(manifest.to_json(), encoding="utf-8"))
    if (folder / SIGNATURE_NAME).exists():
        _log.warning(
            "the signature of %s is over another manifest now; sign it anew: immunogate bundle sign %s --key KEY.pem",
            *(folder, folder),
        )


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle and read its manifest; files are verified when they are read.

    Where signatures are asked for, the manifest is not even parsed before each demand is met, and the folder may hold
    nothing that the manifest does not list.

    Raises:
        UsageError: there is no folder of that name, or no manifest in it; or a key to be trusted can not be.
        BundleError: the manifest is damaged or of another version; or it is not signed as asked, something else lies
            in the folder, or something is a link.
        MissingExtraError: signatures are asked for and `cryptography` is not installed.
    """
    data = _manifest_bytes(folder)
    if not is_demanded():
        return _parsed(folder, data)
    signed_by = _signers(folder, data)
    bundle = _parsed(folder, data, signed_by)
    _expect_nothing_else(bundle)
    return bundle


def sign_bundle(folder: Path, key: PrivateKey, out: Path | None = None) -> tuple[Bundle, int]:
    """Verify every file, then sign the manifest, which pins them all. Opens the bundle whatever is asked for here.

    Args:
        folder: the bundle.
        key: that signs.
        out: where the signature goes, by default into the bundle.

    Returns:
        The bundle, and how many signatures the file holds now.

    Raises:
        BundleError: a file is missing, changed, a link, or not listed; nothing is signed.
        UsageError: there is no bundle, or the signature can not be written.
    """
    data = _manifest_bytes(folder)
    bundle = replace(_parsed(folder, data), signed_by=(key.public.id,))  # as a gate will, refuse links
    _expect_no_link(folder / MANIFEST_NAME)
    _expect_nothing_else(bundle)
    bundle.check()
    return bundle, write_signature(out or folder / SIGNATURE_NAME, BUNDLE, signature_over(BUNDLE, data, key))


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise UsageError(f"{folder} is not a bundle: there is no {MANIFEST_NAME} in it", "Make one: immunogate export")
    return read_bytes(path, MANIFEST_LIMIT)


def _parsed(folder: Path, data: bytes, signed_by: tuple[str, ...] = ()) -> Bundle:
    try:
        manifest = Manifest.from_json(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{folder / MANIFEST_NAME} is not UTF-8 text") from error
    return Bundle(folder, manifest, sha256_of_bytes(data), signed_by)


def _signers(folder: Path, data: bytes) -> tuple[str, ...]:
    """One key for each demand."""
    asked = demands()
    path = folder / SIGNATURE_NAME
    for name in (MANIFEST_NAME, SIGNATURE_NAME):
        _expect_no_link(folder / name)
    if not path.is_file():
        raise BundleError(
            f"{folder} is not signed: there is no {SIGNATURE_NAME}, and {asked[0].by} asks for one",
            f"Do not use it; where the key is: immunogate bundle sign {folder} --key KEY.pem",
        )
    return tuple(proven_by(path, BUNDLE, data, demand.keys).id for demand in asked)


def _expect_no_link(path: Path) -> None:
    if path.is_symlink():
        raise BundleError(f"{path} is a link, and a signed bundle has none", "Copy the bundle with what it links to")


def _expect_nothing_else(bundle: Bundle) -> None:
    listed = {MANIFEST_NAME, SIGNATURE_NAME, *bundle.manifest.files}
    for path in sorted(bundle.folder.iterdir()):
        if path.name not in listed:
            raise BundleError(f"{path} is not in the manifest, and a signed bundle holds nothing else", "Take it out")
