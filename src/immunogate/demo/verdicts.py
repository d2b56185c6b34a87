"""What may be said about the acts: words and numbers that follow what was measured, and nothing else."""

from __future__ import annotations

import statistics
from typing import Any

from immunogate.demo.acts import ADMITTED, Played
from immunogate.demo.gates import FMR, Limits

NO_LIVENESS = (
    "Purification is no liveness detection: a photo of a face held before the camera passes through it unharmed. "
    "A gate that guards something needs certified presentation-attack detection beside it."
)
ONE_PHOTO = (
    "Each walk-up is one public-domain photo that moves, and she is enrolled with the same photo: that she is known "
    "without noise proves little. What counts is the difference that noise makes to either gate."
)


def sentence(played: Played, name: str) -> str:
    """What happened in an act, in one sentence; ``name`` is the enrolled person."""
    return f"{_of_undefended(played, name)}; {_of_defended(played, name)}"


def _of_undefended(played: Played, name: str) -> str:
    attacked, fooled = played.act.attacked, played.fooled()
    if played.act.expected:
        if fooled:
            return "the noise locks her out of the undefended gate" if attacked else "the undefended gate fails her"
        return "the noise does not keep the undefended gate from knowing her" if attacked else "undefended: let in"
    if fooled:
        return f"the undefended gate takes the stranger for {name} and opens"
    return "the noise does not fool the undefended gate" if attacked else "undefended: kept out"


def _of_defended(played: Played, name: str) -> str:
    found, frames = played.outcomes(defended=True), len(played.frames)
    false = f", with a false alarm in {found['alarm']} frames" if found["alarm"] and not played.act.attacked else ""
    most_alarm = found["alarm"] >= ADMITTED * frames
    if not played.act.expected:
        if found["allow"]:
            return f"immunogate ALSO takes the stranger for {name} and opens"
        if played.act.attacked and most_alarm:
            return "immunogate stays shut and raises the alarm"
        return "immunogate stays shut" if played.act.attacked else f"immunogate: kept out{false}"
    if found["allow"] >= ADMITTED * frames:
        return (
            "purification gives her back and immunogate opens" if played.act.attacked else f"immunogate: let in{false}"
        )
    if played.act.attacked and played.held():
        return "immunogate raises the alarm" + (" or opens" if found["allow"] else "")
    return "immunogate FAILS her"


def to_text(acts: list[Played], limits: Limits, name: str, levels: int) -> str:
    """The whole report for a person."""
    lines = [
        f"two gates see the same frames; noise of at most {levels} of 255 grey levels, made for the bare recogniser",
        f"threshold {limits.threshold:.3f} with purification, {limits.undefended:.3f} without"
        + ("" if limits.own else " (the bundle states none of its own: the same one is taken)")
        + f", at a false match rate of {FMR:g}; alarm above {limits.alarm:.3f}",
    ]
    for played in acts:
        lines += ["", f"act {played.act.number}: {played.act.title}"]
        for defended, label in ((False, "undefended"), (True, "immunogate")):
            lines.append(f"  {label}  {counts(played, defended=defended)}")
        mark = "" if played.as_hoped() else "  <- NOT as it should be"
        lines.append(f"  {sentence(played, name)}{mark}")
    good = sum(played.as_hoped() for played in acts)
    lines += ["", f"{good} of {len(acts)} acts went as they should"]
    return "\n".join(lines)


def counts(played: Played, *, defended: bool) -> str:
    """Frames by outcome of one gate, the first that was allowed, and the median similarity."""
    found = played.outcomes(defended=defended)
    parts = [f"{outcome} {found[outcome]:>2}" for outcome in ("allow", "deny", "alarm")]
    if found["unseen"]:
        parts.append(f"no face seen {found['unseen']}")
    first = played.first("allow", defended=defended)
    opened = f", first opened in frame {first}" if first is not None else ", never opened"
    middle = median_similarity(played, defended=defended)
    words = "no similarity" if middle is None else f"similarity {middle:+.2f} (median)"
    return f"{', '.join(parts)} of {len(played.frames)} frames{opened}; {words}"


def median_similarity(played: Played, *, defended: bool) -> float | None:
    """Median cosine with the enrolled person over the frames that have one."""
    decisions = [seen.decision if defended else seen.bare for seen in played.frames]
    values = [d.similarity for d in decisions if d is not None and d.similarity is not None]
    return statistics.median(values) if values else None


def to_dict(acts: list[Played], limits: Limits, name: str, levels: int) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "as_hoped": all(played.as_hoped() for played in acts),
        "enrolled": name,
        "noise_levels": levels,
        "thresholds": {
            "fmr": FMR,
            "immunogate": limits.threshold,
            "undefended": limits.undefended,
            "undefended_is_its_own": limits.own,
            "alarm": limits.alarm,
        },
        "acts": [
            {
                "act": played.act.number,
                "title": played.act.title,
                "attacked": played.act.attacked,
                "frames": len(played.frames),
                "undefended_fooled": played.fooled(),
                "immunogate_held": played.held(),
                "as_hoped": played.as_hoped(),
                "said": sentence(played, name),
                **{
                    label: {
                        "outcomes": dict(played.outcomes(defended=defended)),
                        "median_similarity": median_similarity(played, defended=defended),
                        "first_allowed": played.first("allow", defended=defended),
                    }
                    for defended, label in ((False, "undefended"), (True, "immunogate"))
                },
            }
            for played in acts
        ],
        "note": NO_LIVENESS,
    }
