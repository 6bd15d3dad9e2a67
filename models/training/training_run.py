"""A whole training: pictures in, a version out, every step of it on disk so that it can go on where it stopped.

Beside the version `<root>/<version>/` stands `<root>/<version>.training/`: the options, the split, the curves, and, until the
version is complete, the state of each voter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.inference.cascade import certainty_of
from models.inference.drift import reference_of
from models.inference.golden_set import Golden, save_golden
from models.networks.building import build, load_networks, save_weights
from models.networks.framework import keras
from models.registry import versions as registry
from models.registry.manifest import Costs, Voter
from models.training import collection
from models.training import near_duplicates as likeness
from models.training.checkpoint import Epoch
from models.training.collection import Collection
from models.training.combination import Combination, combine
from models.training.curves import draw_curves
from models.training.options import Options
from models.training.split import class_shares, read_split, split, write_split
from models.training.trainer import Lesson, answers, best_precision
from streams.errors import ModelError

GOLDEN_PICTURES = 24
TOLERANCE = 0.05  # of a golden probability; bfloat16 was seen to move one by 0.02


class Listener(Protocol):
    """Is told how the training goes."""

    def reading(self, done: int, total: int) -> None:
        """Pictures read so far."""

    def collected(self, pictures: Collection, groups: int, contradicting: int, validates: int) -> None:
        """All are read, grouped and split; `contradicting` groups hold pictures of more than one class."""

    def learning(self, voter: str, done: int, total: int, epoch: Epoch | None) -> None:
        """Batches done; at an epoch's end what it came to."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training came to."""

    version: registry.Version
    combination: Combination
    interrupted: bool


@dataclass(frozen=True)
class Course:
    """A training: `roots` name the pictures, `root`/`version` is to hold the result, `command` made it."""

    options: Options
    roots: tuple[Path, ...]
    root: Path
    version: str
    command: str

    @property
    def records(self) -> Path:
        """Where the training keeps what it needs to go on and what a person may want to read."""
        return self.root / f"{self.version}.training"

    def run(self, listener: Listener, resume: bool = False) -> Outcome:
        """Trains all voters and writes the version. After an interrupt the best so far, when each voter has one.

        Raises ModelError for data that cannot be learned from and for a folder in use; KeyboardInterrupt when it came before
        every voter had an epoch.
        """
        self._begin(resume)
        keras.utils.set_random_seed(self.options.seed)
        start = registry.locate(self.options.start) if self.options.start else None
        side_px = start.manifest.preprocessing.side_px if start else self.options.side_px
        pictures = self._collected(side_px, start, listener)
        groups = likeness.groups(pictures.pixels, pictures.checksums, self.options.near_bits, self.options.near_rings)
        written = self.records / "split.csv"
        if written.exists():
            validates = read_split(written, pictures)
        else:
            validates = split(pictures.labels, groups, self.options.validation_share, self.options.seed)
            write_split(written, pictures, groups, validates)
        contradicting = likeness.contradicting(pictures.labels, groups)
        self._write_cleaning(pictures, groups, contradicting)
        listener.collected(pictures, len(np.unique(groups)), len(contradicting), int(validates.sum()))
        voters = start.manifest.voters if start else self.options.voters()
        networks, interrupted = self._taught(voters, start, pictures, validates, listener)
        return self._finish(voters, networks, pictures, validates, interrupted)

    def _begin(self, resume: bool) -> None:
        path = self.records / "options.json"
        asked = self.options.model_dump() | {"data": [str(root) for root in self.roots]}
        if path.exists():
            if not resume:
                raise ModelError(f"expected no earlier training in {self.records}; add --resume to go on, or choose another name")
            # Options newer than the training: unset, and grouping and balance as they were, or its pictures would be others.
            before = Options().model_dump() | {"near_rings": 0.0, "balance": 0.0} | json.loads(path.read_text(encoding="utf-8"))
            changed = sorted(name for name in asked.keys() | before.keys() if asked.get(name) != before.get(name))
            if changed:
                was = ", ".join(f"{name} {before.get(name)}" for name in changed)
                raise ModelError(f"expected the options of the training to be resumed ({was}); these differ: {', '.join(changed)}")
        elif (self.root / self.version).exists():
            raise ModelError(f"expected a new version, found {self.root / self.version}; versions are never changed once written")
        self.records.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")

    def _collected(self, side_px: int, start: registry.Version | None, listener: Listener) -> Collection:
        entries = collection.scan(self.roots)
        done = iter(range(1, len(entries) + 1))
        classes = start.manifest.classes if start else None
        pictures = collection.read(entries, side_px, classes, advance=lambda: listener.reading(next(done), len(entries)))
        if len(set(pictures.labels)) < 2:
            raise ModelError(f"expected pictures of at least two classes, found only {', '.join(sorted({e.name for e in entries}))}")
        _ = pictures.ok_class  # refused before the long work, not after it
        return pictures

    def _write_cleaning(self, pictures: Collection, groups: npt.NDArray[np.int32], contradicting: npt.NDArray[np.int32]) -> None:
        sizes = np.bincount(groups)
        report = {
            "pictures": pictures.counts,
            "unreadable": [{"path": str(bad.path), "reason": bad.reason, "message": bad.message} for bad in pictures.unreadable],
            "equal_files": len(pictures) - len(set(pictures.checksums)),
            "groups": len(sizes),
            "largest_group": int(sizes.max()),
            # One casting, several labels: some are wrong, or the pictures differ in what the groups cannot see. For a person to look at.
            "contradicting_groups": [
                {
                    name: [str(pictures.entries[at].path) for at in np.flatnonzero((groups == group) & (pictures.labels == label))]
                    for label, name in enumerate(pictures.classes)
                }
                for group in contradicting
            ],
            "fingerprint": pictures.fingerprint(),
        }
        (self.records / "cleaning.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def _taught(
        self,
        voters: Sequence[Voter],
        start: registry.Version | None,
        pictures: Collection,
        validates: npt.NDArray[np.bool_],
        listener: Listener,
    ) -> tuple[list[keras.Model], bool]:
        options, interrupted = self.options, False
        precision = best_precision() if options.precision == "auto" else options.precision
        started = load_networks(start, precision) if start else None
        networks = []
        for index, voter in enumerate(voters):
            network = started[index] if started else build(voter, len(pictures.classes), precision)
            file = self.records / f"{voter.name}.state.npz"
            lesson = Lesson(
                network,
                pictures.pixels,
                pictures.labels,
                validates,
                options.batch,
                options.epochs_of(voter.network),
                options.patience,
                options.rate_of(voter.network),
                options.weight_decay,
                options.seed,
                options.turned,
                pictures.repeats(options.balance),
            )
            history: list[Epoch] = []

            def progress(done: int, total: int, epoch: Epoch | None, name: str = voter.name, past: list[Epoch] = history) -> None:
                listener.learning(name, done, total, epoch)
                if epoch:
                    past.append(epoch)
                    draw_curves(self.records / f"{name}.png", name, past)

            try:
                if not interrupted:
                    lesson.learn(file, progress, history)
            except KeyboardInterrupt:
                interrupted = True
            # The voters after the one that was stopped take part as an earlier run left them, or there is no ensemble yet.
            if interrupted and not lesson.take_best(file):
                raise KeyboardInterrupt
            networks.append(network)
        return networks, interrupted

    def _finish(
        self,
        voters: Sequence[Voter],
        networks: Sequence[keras.Model],
        pictures: Collection,
        validates: npt.NDArray[np.bool_],
        interrupted: bool,
    ) -> Outcome:
        options = self.options
        costs = Costs(miss=options.cost_miss, false_alarm=options.cost_false_alarm)
        held, truth = pictures.pixels[validates], pictures.labels[validates]
        with registry.writing(self.root, self.version, replace=True) as folder:
            sound = []
            for voter, network in zip(voters, networks, strict=True):
                saved = build(voter, len(pictures.classes))
                saved.set_weights(network.get_weights())
                save_weights(folder / voter.weights_file, voter, saved, options.half)
                sound.append(saved)
            found = np.stack([answers(network, held) for network in sound], axis=1)
            names = [voter.name for voter in voters]
            combination = combine(
                names, found, truth, pictures.ok_class, costs, options.review_share, class_shares(pictures.labels, validates)
            )
            vote = combination.vote
            chosen = _golden(vote.defect_probability(found), (vote.threshold, vote.low, vote.high), options.seed)
            save_golden(folder / "golden.npz", Golden(held[chosen], found[chosen]))
            manifest = registry.write_manifest(
                folder,
                {
                    "version": self.version,
                    "created": datetime.now(UTC),
                    "classes": pictures.classes,
                    "ok_class": pictures.ok_class,
                    "preprocessing": {"side_px": pictures.pixels.shape[1]},
                    "voters": [
                        voter.model_copy(update={"weight": float(weight), "temperature": float(temperature)})
                        for voter, weight, temperature in zip(voters, vote.weights, vote.temperatures, strict=True)
                    ],
                    "temperature": vote.temperature,
                    "threshold": vote.threshold,
                    "band": {"low": vote.low, "high": vote.high},
                    "costs": costs,
                    "cascade": certainty_of(vote, "lenet", found) if len(names) > 1 and "lenet" in names else None,
                    "golden": {"file": "golden.npz", "tolerance": TOLERANCE},
                    "data": {
                        "sha256": pictures.fingerprint(),
                        "pictures": pictures.counts,
                        "split": f"{options.validation_share:.0%} by groups of near-duplicates "
                        f"({options.near_bits} bits, rings {options.near_rings}), seed {options.seed}",
                    },
                    "figures": figures(combination, found, truth),
                    "command": self.command,
                    "reference": reference_of(held, vote.defect_probability(found), truth != pictures.ok_class),
                },
            )
        if not interrupted:
            for path in self.records.glob("*.state.npz"):
                path.unlink()
        return Outcome(registry.Version(self.root / self.version, manifest), combination, interrupted)


def figures(combination: Combination, found: npt.NDArray[np.float32], truth: npt.NDArray[np.int32]) -> dict[str, float]:
    """What the ensemble and each voter come to on the validation pictures; the threshold decides, the band is left aside."""
    vote = combination.vote
    bad = truth != vote.ok_class
    probability = vote.defect_probability(found)
    called = probability >= vote.threshold
    result = {
        "pictures": float(len(truth)),
        "accuracy": float((called == bad).mean()),
        "misses": float((bad & ~called).sum()),
        "false_alarms": float((~bad & called).sum()),
        "reviews": float(((probability >= vote.low) & (probability < vote.high)).sum()),
        "cost_per_picture": combination.cost,
        "cross_entropy": combination.loss,
        "better_than_members": float(combination.better),
    }
    for index, name in enumerate(vote.names):
        alone = replace(vote, weights=np.eye(len(vote.names))[index], temperature=1.0).defect_probability(found)
        result[f"{name}_accuracy_at_half"] = float(((alone >= 0.5) == bad).mean())
        result[f"{name}_cost_per_picture"] = combination.voters_cost[index]
        result[f"{name}_cross_entropy"] = combination.voters_loss[index]
    return result


def _golden(probability: npt.NDArray[np.float64], edges: tuple[float, ...], seed: int) -> npt.NDArray[np.int64]:
    """Validation pictures for the golden set, from all over the scale, but none so near an edge that a rounding could move it over."""
    margin = np.min([np.abs(probability - edge) for edge in edges], axis=0)
    clear = np.flatnonzero(margin > 2 * TOLERANCE)
    if len(clear) == 0:
        clear = np.argsort(margin)[-1:]
    shuffled = np.random.default_rng(seed).permutation(clear)
    ranked = shuffled[np.argsort(probability[shuffled], kind="stable")]
    return ranked[np.unique(np.linspace(0, len(ranked) - 1, GOLDEN_PICTURES).astype(np.int64))]
