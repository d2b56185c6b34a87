"""Launches every kernel a few times over awkward sizes and compares with the definition: for compute-sanitizer.

compute-sanitizer --tool memcheck --error-exitcode 9 python tools/sanitize_kernels.py
"""

from __future__ import annotations

import argparse
import sys

from kernel_parity import CHECKS, Check, Limits, run

from immunogate.errors import ImmunogateError
from immunogate.kernels.device import Device, open_device

SMALL = Limits(batch=9, clones=70, genes=333, pixels=2100, templates=200)
"""A sanitized kernel takes a hundred times as long."""


def main(words: list[str] | None = None) -> int:
    """0 where all agree, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=2, help="of each check, each with other sizes (default 2)")
    parser.add_argument("--binding", help="pycuda or cuda-core (default: the first that is installed)")
    given = parser.parse_args(words)
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    failed = 0
    try:
        with open_device(binding=given.binding, strict=True) as device:
            print(f"{device.name}, {device.architecture}, through {device.binding}", flush=True)
            for check in CHECKS:
                for seed in range(given.rounds):
                    failed += not _agrees(check, device, seed)
    except ImmunogateError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("all agree" if not failed else f"{failed} do not agree")
    return 1 if failed else 0


def _agrees(check: Check, device: Device, seed: int) -> bool:
    try:
        run(check, device, seed, SMALL)
    except AssertionError as error:
        print(f"{check.__name__}, seed {seed}: {error}", file=sys.stderr)
        return False
    print(f"{check.__name__}, seed {seed}: agrees", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
