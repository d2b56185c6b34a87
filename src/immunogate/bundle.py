"""A bundle: the folder that holds everything a gate needs, every file verified before it is used.

Files are read once; the bytes that were hashed are the bytes that are loaded, so nothing can be exchanged between
the check and the use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from immunogate.errors import BundleError, ImmunogateError, UsageError
from immunogate.files import read_bytes, sha256_of_bytes, write_whole
from immunogate.manifest import MANIFEST_NAME, Calibration, Manifest

MANIFEST_LIMIT = 1 << 20
"""Largest manifest that is read, in bytes."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself.
        sha256: hash of the manifest file, which pins all others.
    """

    folder: Path
    manifest: Manifest
    sha256: str

    def read(self, name: str) -> bytes:
        """The verified content of a listed file.

        Raises:
            BundleError: the file is missing, or its length or hash is not what the manifest says; it is named.
        """
        entry = self.manifest.files[name]
        path = self.folder / name
        if not path.is_file():
            raise BundleError(f"{path} is missing from the bundle", "Export the bundle again or restore the file")
        try:
            data = read_bytes(path, max(entry.bytes, 1))
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
    """Write ``manifest.json``, whole or not at all."""
    write_whole(folder / MANIFEST_NAME, lambda path: path.write_text(manifest.to_json(), encoding="utf-8"))


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle and read its manifest; files are verified when they are read.

    Raises:
        UsageError: there is no folder of that name, or no manifest in it.
        BundleError: the manifest is damaged or of another version.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise UsageError(f"{folder} is not a bundle: there is no {MANIFEST_NAME} in it", "Make one: immunogate export")
    data = read_bytes(path, MANIFEST_LIMIT)
    try:
        manifest = Manifest.from_json(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is not UTF-8 text") from error
    return Bundle(folder, manifest, sha256_of_bytes(data))


def check_free(out: Path, overwrite: bool = False) -> None:
    """See that a bundle may be made at ``out``.

    Raises:
        UsageError: something else is there, or a bundle and ``overwrite`` is not set.
    """
    if not out.exists():
        return
    is_bundle = (out / MANIFEST_NAME).is_file()
    if is_bundle and overwrite:
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    mend = "Add --overwrite to replace it" if is_bundle else "Choose another name"
    raise UsageError(f"{out} already exists{' and is a bundle' if is_bundle else ' and is no bundle'}", mend)
