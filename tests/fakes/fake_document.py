"""A document with every kind of part in it, for tests of what reads and writes one."""

from __future__ import annotations

from immunogate.calib.robustness.document import (
    Alarm,
    BundleFacts,
    CalibrationFacts,
    Check,
    Configuration,
    Det,
    Document,
    Milliseconds,
    Panel,
    Queries,
    Row,
    Sanity,
    SettingFacts,
    Signal,
    SignalRow,
    Tool,
    Verdict,
    rate_of,
)


def small_document() -> Document:
    """Made-up figures of four pairs."""
    calibration = CalibrationFacts("measured", "100 faces", 1e-3, 0.41, 0.6, 1e-3)
    held, lost = rate_of(3, 4), rate_of(0, 4)
    return Document(
        schema_version=1,
        tool=Tool("immunogate", "0.1.0"),
        created="2026-01-01T00:00:00+00:00",
        seconds=12.5,
        command="immunogate evaluate bundle photos.npz --quick",
        environment={"cpu": "a CPU", "python": "3.12"},
        bundle=BundleFacts(
            "gateface", "ab" * 32, "cd" * 32, "expected", 2, 0, 0, 1500, "fp32", "cpu", "cpu", calibration
        ),
        setting=SettingFacts("quick", 0, "photos.npz", "ef" * 32, 40, 4, 600, 1e-3, 20, 1, 1, 5),
        verdict=Verdict("WEAK", ("It holds some.", "Purification is not liveness."), ()),
        configurations=(
            Configuration("none", "no defence", 0.3, "half of the photos", rate_of(1, 600), None),
            Configuration("bundle", "its own", 0.41, "calibration", rate_of(0, 600), Milliseconds(9.5, 20.1, 50)),
        ),
        rows=(
            Row("controls", "clean", "none", "aligned crop", None, "bundle", held, held, 0, None, None, None, None),
            Row(
                "adaptive", "PGD-20", "dodging", "aligned crop", 4.0, "bundle", lost, held, 1,
                {"exact": lost, "constant": held}, None, None, "a note",
            ),
            Row(
                "black box", "Square", "impersonation", "aligned crop", 8.0, "bundle", None, held, 0,
                None, 5, Queries(120.0, 500), None,
            ),
            Row("black box", "HopSkipJump", "dodging", "aligned crop", 8.0, "bundle", None, None, 0, None, None, None,
                "not run: library missing"),
        ),
        det=(Det("bundle", (1e-3, 1e-2), (0.3, 0.2)),),
        alarm=Alarm((Signal("raw against purified", 0.6, lost, (SignalRow("PGD-20", 4.0, lost, held, None),)),)),
        sanity=Sanity(False, (Check("converged", True, 0.005, 0.01, "twice the steps changed nothing"),)),
        panels=(Panel("person", "words", "aGk=", "aGk=", "aGk=", 0.7, 0.2),),
        not_tested=("Camera frames were not attacked.",),
    )  # fmt: skip
