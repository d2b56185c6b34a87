"""``immunogate calibrate precision``: a bundle's networks in float16 or int8, refused where they lose too much."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import FACES_HELP, add_bundle, add_json, identified_faces, opened_bundle, print_json, step
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.calib.precision.conversion import ConversionSettings, Converted
    from immunogate.cli.precision_bundle import Parts

NETWORKS = ("analyzer", "recogniser")


def add_parser(parts: Any) -> None:
    """Add the part."""
    parser = parts.add_parser(
        "precision",
        help="networks in float16 or int8",
        description="Make a new bundle with its networks in float16, or in int8 with Q/DQ nodes whose scales come from "
        "faces. Half of the people in FACES help to make it, the other half judge it: a bundle that loses more than "
        "the limits is refused. It needs thresholds and galleries of its own.",
    )
    add_bundle(parser, positional=True)
    parser.add_argument("faces", type=Path, help=FACES_HELP)
    parser.add_argument("--to", choices=("fp16", "int8"), required=True, help="precision of the new bundle")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--network", nargs="+", choices=NETWORKS, help="which to convert (default all that the bundle's mode uses)"
    )
    parser.add_argument(
        "--for", dest="device", choices=("gpu", "cpu"), default="gpu",
        help="int8 as TensorRT takes it, all zero points 0, or as ONNX Runtime is fast at on a CPU (default gpu)",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=("entropy", "percentile", "minmax"), default="percentile",
        help="how int8 finds the range of a tensor (default percentile)",
    )  # fmt: skip
    parser.add_argument(
        "--percentile", type=float, default=99.999, help="of the values within the range (default 99.999)"
    )
    parser.add_argument("--calibration-faces", type=int, default=128, metavar="N", help="(default 128)")
    parser.add_argument("--judged-faces", type=int, default=600, metavar="N", help="at most (default 600)")
    parser.add_argument(
        "--limit", type=float, metavar="COSINE",
        help="with the float embedding, in the mean (default 0.9999 for fp16, 0.995 for int8)",
    )  # fmt: skip
    parser.add_argument(
        "--tar-limit", type=float, metavar="POINTS",
        help="of TAR at FMR 1e-3 that may be lost (default 0.2 for fp16, 1 for int8)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, help="of each network while it is judged")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that stands at --out")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert, judge, write, report."""
    from immunogate.calib.precision.accuracy import MOST_TAR_LOST, refuse_below
    from immunogate.calib.precision.conversion import LEAST_COSINE, ConversionSettings
    from immunogate.calib.precision.integers import IntegerSettings
    from immunogate.cli.precision_bundle import divided, write_bundle
    from immunogate.folders import check_free
    from immunogate.manifest import MANIFEST_NAME

    if arguments.device == "cpu" and arguments.to == "fp16":
        raise UsageError(
            "--for cpu is for int8: no CPU here calculates in float16", "Use --to int8, or leave --for out"
        )
    settings = ConversionSettings(
        arguments.to,
        LEAST_COSINE[arguments.to] if arguments.limit is None else arguments.limit,
        IntegerSettings(arguments.method, arguments.percentile, arguments.device),
    )
    tar_limit = MOST_TAR_LOST[arguments.to] if arguments.tar_limit is None else arguments.tar_limit
    check_free(arguments.out, MANIFEST_NAME, "bundle", overwrite=arguments.overwrite)
    bundle = opened_bundle(arguments.bundle)
    parts = divided(identified_faces(arguments.faces), arguments.calibration_faces, arguments.judged_faces)
    converted, accuracy = _converted(bundle, parts, settings, arguments)
    refuse_below(accuracy, settings.limit, tar_limit)
    made = write_bundle(bundle, arguments.out, converted, settings, accuracy, parts, arguments.faces)
    report = made.manifest.provenance["precision"]
    if arguments.json:
        print_json({"bundle": str(arguments.out), "sha256": made.sha256, **report})
    else:
        print(to_text(made, report))
    print(
        f"next: immunogate calibrate threshold {arguments.out} FACES.npz, then enroll anew: thresholds and galleries "
        "of the bundle it was made from do not hold for it",
        file=sys.stderr,
    )
    return 0


def _converted(
    bundle: Bundle, parts: Parts, settings: ConversionSettings, arguments: argparse.Namespace
) -> tuple[dict[str, Converted], Any]:
    from functools import partial

    from immunogate.calib.precision.accuracy import compare
    from immunogate.calib.precision.conversion import Judges, convert
    from immunogate.cli.tapped_chain import TappedChain, both, embeddings

    found: dict[str, Converted] = {}
    with TappedChain(bundle, arguments.threads) as chain:
        inputs = chain.inputs(parts.calibrating.images, "calibration faces")
        few, many = parts.few.images, parts.calibrating.images
        reference = {name: chain.see(images) for name, images in (("few", few), ("many", many))}
        for role in _chosen(arguments.network, list(chain.taps)):
            judges = Judges(
                few=partial(embeddings, chain, role, images=few),
                many=partial(embeddings, chain, role, images=many),
                few_reference=both(reference["few"], role),
                many_reference=both(reference["many"], role),
            )
            with step(role):
                found[role] = convert(chain.content[role], role, inputs[role], judges, settings, _say)
        with step(f"judging on {len(parts.judging)} faces of other people"):
            before = chain.see(parts.judging.images, "float")
            with chain.exchanged({role: part.judged for role, part in found.items()}):
                after = chain.see(parts.judging.images, settings.to)
    assert parts.judging.identities is not None  # identified_faces has seen to it
    return found, compare(before, after, parts.judging.identities)


def _chosen(asked: list[str] | None, there: list[str]) -> list[str]:
    for role in asked or []:
        if role not in there:
            raise UsageError(
                f"--network {role}: the bundle's mode uses no {role}", f"Choose of: {', '.join(sorted(there))}"
            )
    return sorted(set(asked or there))


def _say(words: str) -> None:
    print(f"  {words}", file=sys.stderr, flush=True)


def to_text(bundle: Bundle, report: dict[str, Any]) -> str:
    """What was made and what it costs, as lines."""
    accuracy = report["accuracy"]
    lines = [f"{bundle.folder}: {bundle.manifest.model_id}"]
    for role, part in report["networks"].items():
        kept = part["kept_in_float"]
        lines.append(
            f"{role}: {part['layers'] - len(kept)} of {part['layers']} layers converted, {part['bytes']:,} bytes"
        )
        lines += [f"  kept in float: {e['node']} ({e['op']}), {e['reason']} {e['number']:g}" for e in kept]
        lines += [f"  costs 1 - cosine {e['cost']:.1e}: {e['node']} ({e['op']})" for e in part["costliest_layers"][:5]]
    lines.append(f"{accuracy['faces']} faces of {accuracy['people']} people who had no part in it:")
    lines += [
        f"  cosine with float, {name}: least {entry['least']:.5f}, 1st percentile {entry['worst_percent']:.5f}, "
        f"mean {entry['mean']:.5f}"
        for name, entry in (("raw", accuracy["raw"]), ("purified", accuracy["purified"]))
    ]
    lines.append(
        f"  TAR at FMR {accuracy['fmr']:g}: {accuracy['tar_float']:.4f} -> {accuracy['tar_converted']:.4f}; pairs "
        f"decided otherwise: {accuracy['genuine_flipped']:.2%} genuine, {accuracy['impostor_flipped']:.4%} impostor"
    )
    if accuracy["genes"]:
        genes = accuracy["genes"]
        lines.append(
            f"  probabilities: mean change {genes['mean_change']:.1e}, largest {genes['largest_change']:.3f}, on "
            f"another side of one half {genes['flipped']:.3%}"
        )
    return "\n".join(lines)
