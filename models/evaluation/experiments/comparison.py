"""The ensemble against its members and a classifier without networks: several trainings on grouped splits, judged by pictures apart.

Each part of an experiment (a seed, a fold) has three sides: who teaches, who chooses (temperatures, weights, threshold), who judges.
No group of near-duplicates stands on two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from models.evaluation.experiments.cells import Cells, Progressing, Pupils, Watcher
from models.evaluation.figures import Share
from models.inference.ensemble import Vote
from models.registry.manifest import Costs
from models.training import near_duplicates as likeness
from models.training.collection import Collection
from models.training.combination import combine
from models.training.options import Options
from models.training.split import class_shares, split, too_large
from models.training.trainer import answers
from streams.errors import ModelError

SINGLE, SINGLE_SIDE_PX = "svm", 32  # a support vector machine on small pictures
EQUAL = Costs(miss=1, false_alarm=1)  # so that the threshold is chosen for the rate that is compared
ENSEMBLE = "ensemble"

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """One training of all classifiers."""

    name: str
    seed: int
    chooses: Flags  # (n,)
    judges: Flags


@dataclass(frozen=True)
class Judged:
    """What the classifiers of one part say of the pictures that judge: whether each calls a picture defective, shape (n,)."""

    part: Part
    called: dict[str, Flags]
    bad: Flags
    sources: npt.NDArray[np.str_]

    def rate(self, name: str) -> float:
        """Share judged rightly."""
        return float((self.called[name] == self.bad).mean())

    def of(self, source: str | None) -> Flags:
        """Who came from `source`; everybody where it is None."""
        result: Flags = self.sources == source if source else np.ones(len(self.bad), np.bool_)
        return result


@dataclass(frozen=True)
class Comparison:
    """Classifiers trained part by part. Finished cells are kept in `folder`."""

    options: Options
    folder: Path
    kind: str  # "voters", "5 folds": a folder holds one kind
    single: bool  # whether the classifier without networks takes part

    def run(self, pictures: Collection, parts: Sequence[Part], watcher: Watcher) -> list[Judged]:
        """Trains what is not finished yet."""
        cells = Cells(self.folder)
        cells.begin({"experiment": self.kind, "options": self.options.model_dump(), "pictures": pictures.fingerprint()})
        voters = self.options.voters()
        names = [*([SINGLE] if self.single else []), *(voter.name for voter in voters)]
        total = len(parts) * len(names)
        for index, part in enumerate(parts):
            for place, name in enumerate(names):
                cell, number = f"{part.name}-{name}", index * len(names) + place
                if not cells.done(cell):
                    if name == SINGLE:
                        cells.keep(cell, _single(pictures, part))
                    else:
                        self._network(cells, cell, name, pictures, part, Progressing(watcher, cell, number, total))
                watcher.cell(cell, number + 1, total)
        return [self._judged(cells, part, pictures) for part in parts]

    def _network(self, cells: Cells, cell: str, name: str, pictures: Collection, part: Part, hear: Progressing) -> None:
        (voter,) = (each for each in self.options.voters() if each.name == name)
        teaches = ~part.judges
        repeats = pictures.repeats(self.options.balance)[teaches]
        pupils = Pupils(pictures.pixels[teaches], pictures.labels[teaches], part.chooses[teaches], len(pictures.classes), repeats)
        network = cells.taught(cell, voter, self.options, part.seed, pupils, hear)
        cells.keep(cell, {side: answers(network, pictures.pixels[who]) for side, who in _sides(part)})

    def _judged(self, cells: Cells, part: Part, pictures: Collection) -> Judged:
        ok, truth, voters = pictures.ok_class, pictures.labels, [voter.name for voter in self.options.voters()]
        kept = {name: cells.kept(f"{part.name}-{name}") for name in voters}
        chosen, judged = (np.stack([kept[name][side] for name in voters], axis=1).astype(np.float32) for side, _ in _sides(part))
        weights = class_shares(truth, part.chooses)
        vote = combine(voters, chosen, truth[part.chooses], ok, EQUAL, 0, weights).vote
        called = {ENSEMBLE: _called(vote, judged)}
        for index, name in enumerate(voters):
            alone = combine([name], chosen[:, index : index + 1], truth[part.chooses], ok, EQUAL, 0, weights).vote
            called[name] = _called(alone, judged[:, index : index + 1])
        if self.single:
            called[SINGLE] = cells.kept(f"{part.name}-{SINGLE}")["judges"].argmax(axis=1) != ok
        sources = np.array([Path(entry.source).name for entry in pictures.entries])
        return Judged(part, called, truth[part.judges] != ok, sources[part.judges])


def seeds_parts(pictures: Collection, options: Options, seeds: Sequence[int]) -> list[Part]:
    """A split of its own for every seed: a share judges, as large a share of the rest chooses."""
    groups = _groups(pictures, options)
    found = []
    for seed in seeds:
        judges = split(pictures.labels, groups, options.validation_share, seed)
        found.append(Part(f"seed-{seed}", seed, _choosing(pictures, groups, judges, options, seed), judges))
    return found


def folds_parts(pictures: Collection, options: Options, folds: int) -> list[Part]:
    """Every picture judges in one of `folds` parts, but for those of groups that are too large to judge: they teach in all."""
    groups = _groups(pictures, options)
    if len(np.unique(groups)) < folds:
        raise ModelError(f"expected at least {folds} groups of pictures that are not near-duplicates, found {len(np.unique(groups))}")
    found = []
    able = np.flatnonzero(~too_large(pictures.labels, groups, 1 / folds))
    labels = pictures.labels[able]
    sides = StratifiedGroupKFold(folds, shuffle=True, random_state=options.seed).split(able, labels, groups[able])
    for number, (_, examined) in enumerate(sides, 1):
        judges = np.zeros(len(pictures), np.bool_)
        judges[able[examined]] = True
        found.append(Part(f"fold-{number}", options.seed, _choosing(pictures, groups, judges, options, options.seed), judges))
    return found


def counted(judged: Sequence[Judged], name: str, source: str | None = None) -> Share:
    """Right of all, over several parts; of one source where it is given."""
    right = sum(int((each.called[name] == each.bad)[each.of(source)].sum()) for each in judged)
    return Share.counted(right, sum(int(each.of(source).sum()) for each in judged))


def mistakes(judged: Sequence[Judged], name: str, source: str | None = None) -> tuple[int, int]:
    """Misses and false alarms, counted likewise."""
    misses = sum(int((each.bad & ~each.called[name] & each.of(source)).sum()) for each in judged)
    return misses, sum(int((~each.bad & each.called[name] & each.of(source)).sum()) for each in judged)


def sources_of(judged: Sequence[Judged]) -> list[str]:
    """Names of the roots that the pictures came from, where there are several."""
    found = sorted(set(np.concatenate([each.sources for each in judged]).tolist()))
    return found if len(found) > 1 else []


def _groups(pictures: Collection, options: Options) -> npt.NDArray[np.int32]:
    _ = pictures.ok_class  # refused before the long work, not after it
    return likeness.groups(pictures.pixels, pictures.checksums, options.near_bits, options.near_rings)


def _choosing(pictures: Collection, groups: npt.NDArray[np.int32], judges: Flags, options: Options, seed: int) -> Flags:
    rest = np.flatnonzero(~judges)
    chooses = np.zeros(len(judges), np.bool_)
    chooses[rest[split(pictures.labels[rest], groups[rest], options.validation_share, seed)]] = True
    return chooses


def _sides(part: Part) -> tuple[tuple[str, Flags], tuple[str, Flags]]:
    return ("chooses", part.chooses), ("judges", part.judges)


def _called(vote: Vote, found: npt.NDArray[np.float32]) -> Flags:
    result: Flags = vote.defect_probability(found) >= vote.threshold
    return result


def _single(pictures: Collection, part: Part) -> dict[str, npt.NDArray[np.generic]]:
    side = (SINGLE_SIDE_PX, SINGLE_SIDE_PX)
    small = np.stack([np.asarray(Image.fromarray(one).resize(side, Image.Resampling.BOX)) for one in pictures.pixels])
    flat = small.reshape(len(small), -1).astype(np.float32)
    teaches = ~part.judges & ~part.chooses
    machine = make_pipeline(StandardScaler(), SVC(C=10, class_weight="balanced"))
    machine.fit(flat[teaches], pictures.labels[teaches])
    named = np.eye(len(pictures.classes), dtype=np.float32)
    return {side: named[machine.predict(flat[who])] for side, who in _sides(part)}
