"""How much a person's look at a part would teach, and why. Pure: what is known of the part in, a score and its reason in words out.

A part that scores nothing is not asked about. The scores are only an order:

- doubt: how near the probability lies to the threshold, 0 (certain) to 0.5 (on it); counts double, so 0 to 1;
- the networks' own labels differ: half their distance, 0 to 0.5;
- the verdict was `review`: 0.3, since the part lies aside and somebody waits for the answer;
- the gate knew no verdict: 0.5, since nobody knows what passed;
- drawn for the audit: 0.05, since it is most likely what the model says; this draw alone shows what the model misses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from streams.identity import PartId

FULL_DOUBT = 0.5
_REVIEW, _UNKNOWN, _AUDIT = 0.3, 0.5, 0.05
# The gate acted before it knew, or never knew.
WITHOUT_VERDICT = frozenset({"no-verdict", "late-verdict", "board-restarted"})


@dataclass(frozen=True)
class Known:
    """What is known of a part; empty where nothing is."""

    part: PartId
    label: str = ""
    defect_probability: float | None = None
    threshold: float | None = None
    votes: Mapping[str, float] | None = None
    reason: str = ""
    sorted_reason: str = ""


@dataclass(frozen=True)
class Interest:
    """`score` > 0 where a person should look; `why` in words; `audit` where the draw took the part, whatever else is true of it."""

    score: float
    why: str
    audit: bool = False


def interest(known: Known, least_doubt: float, audit_share: float, seed: int) -> Interest:
    """The interest of one part. `least_doubt` (0..0.5) is where doubt begins to count, `audit_share` (0..1) how many are drawn."""
    reasons: list[tuple[float, str]] = []
    found = doubt(known.defect_probability, known.threshold)
    if found is not None and (found >= least_doubt or known.label == "review"):
        reasons.append((2 * found, f"doubt {found:.2f} of {FULL_DOUBT:.2f}"))
    if (apart := disagreement(known.votes or {}, known.threshold)) is not None:
        reasons.append(
            (apart / 2, "the networks disagree: " + ", ".join(f"{name} {vote:.2f}" for name, vote in (known.votes or {}).items()))
        )
    if known.label == "review":
        reasons.append((_REVIEW, f"left to a person: {known.reason}" if known.reason else "left to a person"))
    if known.sorted_reason in WITHOUT_VERDICT:
        reasons.append((_UNKNOWN, f"sorted without a verdict: {known.sorted_reason}"))
    audit = drawn(known.part, audit_share, seed)
    if audit:
        reasons.append((_AUDIT, "drawn for the audit"))
    return Interest(round(sum(score for score, _ in reasons), 4), "; ".join(why for _, why in reasons), audit)


def doubt(defect_probability: float | None, threshold: float | None) -> float | None:
    """0 where the probability is 0 or 1, 0.5 on the threshold, falling straight to both sides; None where nothing was judged."""
    if defect_probability is None or threshold is None:
        return None
    side = threshold if defect_probability < threshold else 1 - threshold
    return FULL_DOUBT * (1 - abs(defect_probability - threshold) / side) if side > 0 else FULL_DOUBT


def disagreement(votes: Mapping[str, float], threshold: float | None) -> float | None:
    """How far the votes lie apart where they lie on both sides of the threshold; None where they agree."""
    if threshold is None or len(votes) < 2:
        return None
    low, high = min(votes.values()), max(votes.values())
    return high - low if low < threshold <= high else None


def drawn(part: PartId, share: float, seed: int) -> bool:
    """Whether the audit takes `part`: the same answer on every machine, and none that a line could foresee without the seed."""
    digest = hashlib.sha256(f"{seed}|{part}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64
