"""``immunogate bundle``: keys, signatures, and whether they hold."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from immunogate.cli.common import add_json, print_json
from immunogate.errors import UsageError

DESCRIPTION = (
    "Sign a bundle where it is made, and refuse any other where it runs. The Ed25519 signature is over the manifest, "
    "which holds the hash of every file and the calibration; whoever calibrates anew signs anew."
)
PASSPHRASES = (
    "The passphrase is taken from --passphrase-file or IMMUNOGATE_KEY_PASSPHRASE, never from the command line."
)


def add_parser(subparsers: Any) -> None:
    """Add the command and its parts."""
    parser = subparsers.add_parser("bundle", help="sign bundles and check signatures", description=DESCRIPTION)
    parts = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    keygen = parts.add_parser("keygen", help="make a pair of keys", description=f"Make a pair of keys. {PASSPHRASES}")
    keygen.add_argument("folder", type=Path, metavar="FOLDER", help="where signing_key.pem and public_key.pem go")
    sign = parts.add_parser(
        "sign",
        help="sign a bundle",
        description="Verify every file and sign the manifest. A signature of another key stays if it still holds: so "
        f"keys are exchanged one after the other. {PASSPHRASES}",
    )
    sign.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle")
    sign.add_argument("--key", type=Path, required=True, metavar="KEY.pem", help="the private key")
    sign.add_argument("--out", type=Path, metavar="FILE", help="where the signature goes (default: into the bundle)")
    sign.add_argument(
        "--engines", type=Path, metavar="FOLDER",
        help="sign the version compatible engines in here too: they carry code, and are loaded only with it",
    )  # fmt: skip
    verify = parts.add_parser(
        "verify",
        help="check signature and files",
        description="Check that a trusted key signed the bundle and that every file is the one signed.",
    )
    verify.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle")
    verify.add_argument(
        "--key", dest="require_signature", type=Path, action="append", metavar="PUBLIC.pem",
        help="a key to trust; may be given again (left out: those of IMMUNOGATE_TRUSTED_KEYS)",
    )  # fmt: skip
    for part in (keygen, sign):
        part.add_argument("--passphrase-file", type=Path, metavar="FILE", help="its first line; for its owner alone")
    for part, run in ((keygen, run_keygen), (sign, run_sign), (verify, run_verify)):
        add_json(part)
        part.set_defaults(run=run)


def run_keygen(arguments: argparse.Namespace) -> int:
    """Make a pair."""
    from immunogate.keys import PRIVATE_NAME, PUBLIC_NAME, make_keys, passphrase_from

    folder, passphrase = arguments.folder, passphrase_from(arguments.passphrase_file)
    key = make_keys(folder, passphrase)
    if passphrase is None:
        print("the private key is not encrypted: whoever reads the file can sign", file=sys.stderr)
    if arguments.json:
        paths = {"private": str(folder / PRIVATE_NAME), "public": str(folder / PUBLIC_NAME)}
        print_json({"key": key.id, **paths, "encrypted": passphrase is not None})
    else:
        print(f"key {key.id}\n{folder / PRIVATE_NAME}  keep it, away from gates\n{folder / PUBLIC_NAME}  for the gates")
        print(f"next: immunogate bundle sign BUNDLE --key {folder / PRIVATE_NAME}")
    return 0


def run_sign(arguments: argparse.Namespace) -> int:
    """Sign."""
    from immunogate.bundle import SIGNATURE_NAME, sign_bundle
    from immunogate.engines.host_code import sign_engines
    from immunogate.keys import load_private_key, passphrase_from

    key = load_private_key(arguments.key, passphrase_from(arguments.passphrase_file))
    bundle, count = sign_bundle(arguments.bundle, key, arguments.out)
    path = arguments.out or arguments.bundle / SIGNATURE_NAME
    engines = sign_engines(bundle, arguments.engines, key) if arguments.engines else []
    if arguments.json:
        about = {"key": key.public.id, "bundle": bundle.sha256, "signature": str(path), "signatures": count}
        print_json({**about, "engines": [str(engine) for engine in engines]})
    else:
        print(f"{path}: signed by key {key.public.id}, {count} signature{'s' if count > 1 else ''} in all")
        for engine in engines:
            print(f"{engine}: signed")
        print("a calibration changes what was signed: sign anew after it")
        print(f"next, at the gate: immunogate bundle verify {arguments.bundle} --key PUBLIC.pem")
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    """Check; whatever does not hold is an error that names it."""
    from immunogate.bundle import open_bundle
    from immunogate.trust import VARIABLE, is_demanded

    if not is_demanded():
        raise UsageError(
            "no key to trust is named, and a signature proves nothing without one", f"Give --key, or set {VARIABLE}"
        )
    bundle = open_bundle(arguments.bundle)
    bundle.check()
    if arguments.json:
        files = sorted(bundle.manifest.files)
        print_json({"passed": True, "bundle": bundle.sha256, "signed_by": list(bundle.signed_by), "files": files})
    else:
        print(f"{arguments.bundle}: signed by key {', '.join(dict.fromkeys(bundle.signed_by))}")
        print(f"{len(bundle.manifest.files)} files are those that were signed")
    return 0
