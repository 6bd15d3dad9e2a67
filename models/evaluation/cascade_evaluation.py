"""What the cascade gives up against the whole ensemble, and what it saves, on the same pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from models.evaluation.evaluation_report import Examination, examine
from models.evaluation.figures import Figures, Share
from models.inference.version_ensemble import Ensemble
from models.training.labelled_pictures import LabelledPictures


@dataclass(frozen=True)
class Cascading:
    """The cascade's figures beside the ensemble's."""

    alone: Share  # pictures that the first voter decided alone
    agreement: Share  # pictures with the label that the whole ensemble gives
    misses_added: int  # defects that the cascade calls ok and the ensemble does not
    alarms_added: int  # good parts that the cascade calls defective and the ensemble does not
    figures: Figures
    per_s: float
    whole_per_s: float

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def cascading(whole: Examination, cascade: Ensemble, pictures: LabelledPictures) -> Cascading:
    """Judges `pictures` with `cascade` and compares with what the ensemble said in `whole`."""
    found = examine(cascade, pictures)
    pairs = list(zip(found.opinions, whole.opinions, found.bad, strict=True))
    voters = len(cascade.version.manifest.voters)
    return Cascading(
        alone=Share.counted(sum(len(each.votes) < voters for each in found.opinions), len(pictures)),
        agreement=Share.counted(sum(a.label == b.label for a, b, _ in pairs), len(pictures)),
        misses_added=sum(bool(bad) and a.label == "ok" and b.label != "ok" for a, b, bad in pairs),
        alarms_added=sum(not bad and a.label == "defect" and b.label != "defect" for a, b, bad in pairs),
        figures=found.figures,
        per_s=found.per_s,
        whole_per_s=whole.per_s,
    )
