"""Version-compatible engines carry code that runs on loading: which of them may be loaded, and how they are signed.

A side-car is only a note beside the engine, and whoever can exchange one can exchange both. So such an engine needs a
signature of its own, over the side-car, which holds the engine's hash; by a key that this process trusts; for a bundle
whose signature was asked for and holds. What binds the two is the hash of the network, in the side-car and in the
manifest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from immunogate.bundle import Bundle
from immunogate.engines.record import NETWORKS, EngineError, EngineRecord
from immunogate.engines.store import network_files, read_plan, read_record, record_path
from immunogate.errors import ImmunogateError
from immunogate.keys import PrivateKey
from immunogate.signature import ENGINE, proven_by, signature_over, write_signature
from immunogate.trust import demands

_CARRIES = "it is version compatible, and loading such a plan runs code that it carries: that needs a signed bundle"


def signature_path(folder: Path, network: str) -> Path:
    """Of the signature over a network's side-car."""
    beside = record_path(folder, network)
    return beside.with_name(f"{beside.name}.signature")


def expect_trusted(bundle: Bundle, folder: Path, record: EngineRecord) -> None:
    """Refuse an engine that carries code, unless all of the above is proven; any other engine passes.

    Args:
        bundle: in use.
        folder: of the engines.
        record: the side-car as it was read; its canonical form is what is signed, so nothing can come in between.

    Raises:
        EngineError: something is missing; it says what.
    """
    if not record.flags.version_compatible:
        return
    where = f"the {record.network} engine in {folder}"
    plain = f"Build it again: immunogate build --network {record.network} without --version-compatible"
    if not bundle.signed_by:
        raise EngineError(f"{where} is not loaded: {_CARRIES}, asked for by --require-signature", plain)
    if record.onnx_sha256 != _network_hash(bundle, record):
        raise EngineError(f"{where} is not loaded: it was built from another network than the signed bundle's", plain)
    path = signature_path(folder, record.network)
    mend = f"Sign it where the key is: immunogate bundle sign {bundle.folder} --engines {folder} --key KEY.pem"
    if not path.is_file():
        raise EngineError(f"{where} is not loaded: {_CARRIES} and a signature of its own", mend)
    try:
        for demand in demands():
            proven_by(path, ENGINE, record.to_json().encode(), demand.keys)
    except ImmunogateError as error:
        raise EngineError(f"{where} is not loaded: {error.what}", mend) from error


def deserialized(runtime: Any, plan: bytes, record: EngineRecord) -> Any:
    """TensorRT's engine, or None. Code is allowed for this plan alone: the runtime serves all others too.

    Args:
        runtime: TensorRT's.
        plan: the engine, already hashed.
        record: its side-car, already through `expect_trusted`.
    """
    if not record.flags.version_compatible:
        return runtime.deserialize_cuda_engine(plan)
    runtime.engine_host_code_allowed = True
    try:
        return runtime.deserialize_cuda_engine(plan)
    finally:
        runtime.engine_host_code_allowed = False


def sign_engines(bundle: Bundle, folder: Path, key: PrivateKey) -> list[Path]:
    """Sign the version-compatible engines of a folder, each verified and built from this very bundle.

    Raises:
        EngineError: one is damaged or was built from another bundle, or there is none.
    """
    found = [record for network in NETWORKS if (record := read_record(folder, network)) is not None]
    records = [record for record in found if record.flags.version_compatible]
    if not records:
        raise EngineError(f"{folder} has no version compatible engine", "Others need no signature")
    for record in records:
        if record.onnx_sha256 != _network_hash(bundle, record):
            raise EngineError(
                f"the {record.network} engine in {folder} was built from another bundle", "Build it again"
            )
        read_plan(folder, record)
    paths = [signature_path(folder, record.network) for record in records]
    for path, record in zip(paths, records, strict=True):
        write_signature(path, ENGINE, signature_over(ENGINE, record.to_json().encode(), key))
    return paths


def _network_hash(bundle: Bundle, record: EngineRecord) -> str:
    """Of the bundle's network of that name; empty where it has none."""
    file = network_files(bundle).get(record.network)
    return bundle.manifest.files[file].sha256 if file else ""
