"""A training run: reads the pictures, trains each network and writes a model version. A stopped training run can be resumed.

The version is the folder `<root>/<version>/`. The folder `<root>/<version>.training/` holds options, split, report, curves and checkpoints.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from models.anomaly.scorer import split_alarm_share
from models.inference.cascade import find_cascade_band
from models.inference.drift import make_drift_reference
from models.inference.golden_set import GoldenSet, save_golden_set
from models.inference.soft_vote import SoftVote, VoterProbabilities
from models.inference.training_index import make_training_index
from models.networks.factory import build_network, load_networks, save_weights
from models.networks.framework import keras
from models.pictures.part_finder import learn_part_reference
from models.pictures.part_reference import PartReference
from models.registry import LocalRegistry, Version, locate_version, write_manifest
from models.registry.manifest import CascadeBand, Costs, ScorerEntry, Voter
from models.training.combination import Combination, choose_combination, expect_separation
from models.training.details import LearnedDetails, learn_details
from models.training.good_only import LearnedScorer, add_scorer
from models.training.labelled_pictures import LabelledPictures, find_pictures, read_pictures
from models.training.learned_pictures import LearnedPictures, warn_of_unknown_pictures
from models.training.near_duplicates import find_contradicting_groups, group_near_duplicates
from models.training.options import CUT_OFF_OPTIONS, TrainingOptions
from models.training.split import class_share_weights, count_folds, load_split, save_split, split_by_group
from models.training.trainer import EpochResult, SplitPictures, Trainer, fastest_precision, predict
from streams.atomic_file import write_atomically
from streams.errors import ModelError

log = logging.getLogger(__name__)

OPTIONS_FILE = "options.json"
LEARNED_FILE = "learned-pictures.npz"
GOLDEN_PICTURES = 24
# For a picture of the golden set, the defect probabilities of two runtimes may differ by at most this value. In a trial, the probabilities
# of a runtime with bfloat16 differed by 0.02.
GOLDEN_TOLERANCE = 0.05
_DRAWING_INTERVAL_S = 10.0


class TrainingCallback(Protocol):
    """Receives the progress of a training run. A method may raise KeyboardInterrupt to stop the run after the current batch."""

    def on_picture_read(self, done: int, total: int) -> None:
        """Called after each picture file. `done` of `total` files have been read."""

    def on_pictures_split(self, pictures: LabelledPictures, groups: int, contradicting: int, validation: int) -> None:
        """Called when the pictures have been split into training and validation pictures.

        - `groups`: number of groups of near-duplicates.
        - `contradicting`: number of groups with pictures of several classes.
        - `validation`: number of validation pictures.
        """

    def on_training_step(self, network: str, done: int, total: int, epoch: EpochResult | None) -> None:
        """Called after each batch. The training of `network` has finished `done` of its `total` batches.

        After the last batch of an epoch, `epoch` is the result of this epoch. After all other batches, `epoch` is None.
        """


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The version that a training run wrote, its voting rule, and whether the run was interrupted before its end."""

    version: Version
    combination: Combination
    was_interrupted: bool


@dataclass(frozen=True)
class TrainingRun:
    """Trains all networks of an ensemble on the pictures in `sources`, and writes the version `root`/`version`.

    `command` is the command line of the training run. It is written into the manifest.
    """

    options: TrainingOptions
    sources: tuple[Path, ...]
    root: Path
    version: str
    command: str

    @property
    def training_dir(self) -> Path:
        """The folder of the training run. It holds the training curves, the report on the pictures and the files for resuming the run."""
        return self.root / f"{self.version}.training"

    def run(self, callback: TrainingCallback, resume: bool = False) -> TrainingResult:
        """Trains the networks one after the other and writes the version.

        If the run is interrupted, the version is written with the best weights so far. If a network has not completed any epoch, no version
        is written, and KeyboardInterrupt is raised.

        Raises ModelError, and writes nothing, in these cases:

        - The options contradict each other.
        - The pictures are not suitable for a training.
        - The version exists already, or the folder of the training run holds another run.
        """
        self.options.expect_useful_objective()
        self._expect_own_folder(resume)
        keras.utils.set_random_seed(self.options.seed)
        start = self._start
        pictures = self._read_pictures(callback)
        groups = group_near_duplicates(pictures.pixels, pictures.checksums, self.options.near_bits, self.options.near_rings)
        validates = self._split(pictures, groups, callback)
        voters = start.manifest.voters if start else self.options.voters()
        networks, was_interrupted = self._train_networks(voters, pictures, validates, callback)
        version, combination = self._write_version(voters, networks, pictures, groups, validates)
        if not was_interrupted:
            for path in self.training_dir.glob("*.state.npz"):
                path.unlink()
        return TrainingResult(version, combination, was_interrupted)

    def _describe_options(self) -> dict[str, Any]:
        return self.options.model_dump() | {"data": [str(source) for source in self.sources]}

    def _expect_own_folder(self, resume: bool) -> None:
        """Raises ModelError if this run cannot use the folder `training_dir`, because the folder holds an earlier run.

        The folder can be used if `resume` is True and the earlier run had the same options. Also raises ModelError if the folder does not
        exist, but the version does.
        """
        path, options = self.training_dir / OPTIONS_FILE, self._describe_options()
        if path.exists():
            if not resume:
                raise ModelError(
                    f"{self.training_dir} holds an earlier training run. Add --resume to continue it, or choose another --out."
                )
            # Older releases did not have the options near_rings, balance and min_steps. They trained as if these options had the value 0.
            defaults = TrainingOptions().model_dump() | {"near_rings": 0.0, "balance": 0.0, "min_steps": 0}
            previous = defaults | json.loads(path.read_text(encoding="utf-8"))
            compared = (options.keys() | previous.keys()) - set(CUT_OFF_OPTIONS)
            changed = sorted(name for name in compared if options.get(name) != previous.get(name))
            if changed:
                values = ", ".join(f"{name} {previous.get(name)}" for name in changed)
                names = ", ".join(changed)
                raise ModelError(
                    f"The options differ from those of the training run to be resumed: {names}. Give the earlier values: {values}."
                )
        elif (self.root / self.version).exists():
            raise ModelError(f"The version {self.root / self.version} exists, and versions are never changed. Choose another --out.")

    def _read_pictures(self, callback: TrainingCallback) -> LabelledPictures:
        start = self._start
        side_px = start.manifest.preprocessing.side_px if start else self.options.side_px
        classes = start.manifest.classes if start else None
        pictures = read_pictures(
            find_pictures(self.sources), side_px, classes, depth_bits=self._depth_bits, on_read=callback.on_picture_read
        )
        pictures.expect_two_classes()
        # `ok_class` raises ModelError if the class of good parts is unclear. It is read here, because a later error would waste hours.
        _ = pictures.ok_class
        return pictures

    @cached_property
    def _start(self) -> Version | None:
        """The version from which the training starts (fine-tuning)."""
        return locate_version(self.options.start) if self.options.start else None

    @cached_property
    def _learned_before(self) -> LearnedPictures:
        """The pictures that the start version has learned."""
        if (start := self._start) is None:
            return LearnedPictures()
        return LearnedPictures.load(start, start.manifest.learned, start.manifest.has_seen_only_rendered)

    def _describe_start(self, pictures: LabelledPictures) -> list[str]:
        """Returns a warning if the start version may have learned some of the validation pictures, else an empty list."""
        start = self._start
        if start is None or not self._learned_before.may_miss(pictures.rendered):
            return []
        return [warn_of_unknown_pictures(f"version {start.name}", "the figures are too good, and the threshold is not reliable")]

    @property
    def _depth_bits(self) -> int | None:
        given, start = self.options.depth_bits, self._start
        return given if given is not None or start is None else start.manifest.preprocessing.depth_bits

    def _split(self, pictures: LabelledPictures, groups: npt.NDArray[np.int32], callback: TrainingCallback) -> npt.NDArray[np.bool_]:
        """Returns a mask of the validation pictures. Also writes split.csv (the split) and cleaning.json (a report on the pictures)."""
        options, path = self.options, self.training_dir / "split.csv"
        is_new = not path.exists()
        if is_new:
            pictures.expect_enough(count_folds(options.validation_share))
            is_learned = self._learned_before.find_groups(pictures.checksums, groups)
            validates = split_by_group(pictures.labels, groups, options.validation_share, options.seed, is_learned)
        else:
            validates = load_split(path, pictures)
        # The first file is written after the check of the pictures, so that a run with unsuitable pictures creates no folder.
        write_atomically(self.training_dir / OPTIONS_FILE, json.dumps(self._describe_options(), indent=2) + "\n")
        if is_new:
            save_split(path, pictures, groups, validates)
        contradicting = find_contradicting_groups(pictures.labels, groups)
        self._save_picture_report(pictures, groups, contradicting)
        callback.on_pictures_split(pictures, len(np.unique(groups)), len(contradicting), int(validates.sum()))
        return validates

    def _save_picture_report(self, pictures: LabelledPictures, groups: npt.NDArray[np.int32], contradicting: npt.NDArray[np.int32]) -> None:
        sizes = np.bincount(groups)
        report = {
            "pictures": pictures.class_counts,
            "warnings": pictures.describe_shortage(),
            "handed": self.options.handed,
            "unreadable": [{"path": str(file.path), "reason": file.reason, "message": file.message} for file in pictures.unreadable],
            "equal_files": len(pictures) - len(set(pictures.checksums)),
            "groups": len(sizes),
            "largest_group": int(sizes.max()),
            # A person must look at groups of near-duplicates with different labels. Either a label is wrong, or two castings look alike
            # except for a defect.
            "contradicting_groups": [
                {
                    name: [str(pictures.files[index].path) for index in np.flatnonzero((groups == group) & (pictures.labels == label))]
                    for label, name in enumerate(pictures.classes)
                }
                for group in contradicting
            ],
            "fingerprint": pictures.fingerprint(),
        }
        write_atomically(self.training_dir / "cleaning.json", json.dumps(report, indent=2) + "\n")

    def _train_networks(
        self,
        voters: Sequence[Voter],
        pictures: LabelledPictures,
        validates: npt.NDArray[np.bool_],
        callback: TrainingCallback,
    ) -> tuple[list[keras.Model], bool]:
        """Returns the trained networks, and whether the training was interrupted."""
        start = self._start
        precision = fastest_precision() if self.options.precision == "auto" else self.options.precision
        networks = (
            load_networks(start, precision) if start else [build_network(voter, len(pictures.classes), precision) for voter in voters]
        )
        samples = SplitPictures(pictures.pixels, pictures.labels, validates, pictures.repeats(self.options.balance))
        was_interrupted = False
        for voter, network in zip(voters, networks, strict=True):
            path = self.training_dir / f"{voter.name}.state.npz"
            trainer = Trainer(network, samples, self.options.recipe_of(voter.network))
            curves = _CurveFiles(self.training_dir, voter.name)

            def on_progress(
                done: int,
                total: int,
                history: Sequence[EpochResult],
                is_epoch_end: bool,
                curves: _CurveFiles = curves,
                name: str = voter.name,
            ) -> None:
                if is_epoch_end:
                    curves.save(history)
                callback.on_training_step(name, done, total, history[-1] if is_epoch_end else None)

            try:
                if not was_interrupted:
                    trainer.fit(path, on_progress)
            except KeyboardInterrupt:
                was_interrupted = True
            finally:
                curves.draw()
            # After an interruption, every network gets the best weights of its checkpoint. If a network has no checkpoint, the run ends,
            # because an ensemble needs all networks.
            if was_interrupted and not trainer.restore_best(path):
                raise KeyboardInterrupt
        return networks, was_interrupted

    def _has_start_seen_only_rendered(self) -> bool:
        """Returns whether the start version was trained only on rendered pictures.

        Returns True if there is no start version, because the networks then begin without having seen any picture.
        """
        return self._start is None or self._start.manifest.has_seen_only_rendered

    def _write_version(
        self,
        voters: Sequence[Voter],
        networks: Sequence[keras.Model],
        pictures: LabelledPictures,
        groups: npt.NDArray[np.int32],
        validates: npt.NDArray[np.bool_],
    ) -> tuple[Version, Combination]:
        options = self.options
        costs = Costs(miss=options.cost_miss, false_alarm=options.cost_false_alarm)
        pixels, labels = pictures.pixels[validates], pictures.labels[validates]
        with LocalRegistry(self.root).write_version(self.version, replace=True) as folder:
            # The saved networks always compute in float32, even if the training used another precision.
            saved_networks = []
            for voter, network in zip(voters, networks, strict=True):
                saved = build_network(voter, len(pictures.classes))
                saved.set_weights(network.get_weights())
                save_weights(folder / voter.weights_file, voter, saved, options.half)
                saved_networks.append(saved)
            probabilities = np.stack([predict(network, pixels) for network in saved_networks], axis=1)
            names = [voter.name for voter in voters]
            picture_weights = class_share_weights(pictures.labels, validates)
            combination = choose_combination(
                names, probabilities, labels, pictures.ok_class, costs, options.review_share, picture_weights, groups[validates]
            )
            vote = combination.vote
            defect_probability = vote.compute_defect_probability(probabilities)
            expect_separation(defect_probability, labels != pictures.ok_class)
            details = self._learn_details(pictures, groups)
            scored = self._add_scorer(folder, pictures, groups, has_details=details is not None)
            golden = choose_golden_pictures(defect_probability, (vote.threshold, vote.low, vote.high), options.seed)
            scores = scored[1].score(pixels[golden])[:, None] if scored else None
            index = make_training_index(pictures.pixels, groups, *pictures.names)
            learned = self._learned_before.extend(pictures.select(~validates).checksums)
            save_golden_set(folder / "golden.npz", GoldenSet(pixels[golden], probabilities[golden], scores))
            manifest = write_manifest(
                folder,
                {
                    "version": self.version,
                    "created": datetime.now(UTC),
                    "classes": pictures.classes,
                    "ok_class": pictures.ok_class,
                    "preprocessing": {"side_px": pictures.pixels.shape[1], "depth_bits": self._depth_bits},
                    "voters": [
                        voter.model_copy(update={"weight": float(weight), "temperature": float(temperature)})
                        for voter, weight, temperature in zip(voters, vote.weights, vote.temperatures, strict=True)
                    ],
                    "scorers": scored[:1] if scored else (),
                    "details": details.save(folder) if details else None,
                    "temperature": vote.temperature,
                    "threshold": vote.threshold,
                    "band": {"low": vote.low, "high": vote.high},
                    "costs": costs,
                    "cascade": _find_band(vote, probabilities),
                    "golden": {"file": "golden.npz", "tolerance": GOLDEN_TOLERANCE},
                    "data": {
                        "sha256": pictures.fingerprint(),
                        "pictures": pictures.class_counts,
                        "split": f"{options.validation_share:.0%} by groups of near-duplicates "
                        f"({options.near_bits} bits, rings {options.near_rings}), seed {options.seed}",
                    },
                    "training_index": index.save(folder),
                    "learned": learned.save(folder, LEARNED_FILE),
                    "figures": measure_validation(combination, probabilities, labels),
                    "command": self.command,
                    "only_rendered": pictures.rendered == len(pictures) and self._has_start_seen_only_rendered(),
                    "part": learn_part(pictures),
                    "reference": make_drift_reference(pixels, defect_probability, labels != pictures.ok_class, groups[validates]),
                    "handed": options.handed,
                    "warnings": (*pictures.describe_shortage(), *self._describe_start(pictures), *combination.notes),
                },
            )
        return Version(self.root / self.version, manifest), combination

    def _add_scorer(
        self, folder: Path, pictures: LabelledPictures, groups: npt.NDArray[np.int32], has_details: bool
    ) -> tuple[ScorerEntry, LearnedScorer] | None:
        """If the option `scorer` is set, trains a scorer on the good pictures alone and writes it into `folder`.

        The options limit the number of false alarms. If the version also has a detail template, the scorer may cause only half of this
        number, because the detail template causes false alarms, too.
        """
        if not self.options.scorer:
            return None
        return add_scorer(folder, pictures, groups, split_alarm_share(self.options.choose_objective(), 2 if has_details else 1))

    def _learn_details(self, pictures: LabelledPictures, groups: npt.NDArray[np.int32]) -> LearnedDetails | None:
        """If the option `details` is set, learns a detail template from the original pixels of the good pictures.

        If no template can be learned, logs the reason and returns None. An error would end the run, and the trained networks would be lost.
        """
        if not self.options.details:
            return None
        good = np.flatnonzero(pictures.labels == pictures.ok_class)
        paths, side_px = [pictures.files[index].path for index in good], pictures.pixels.shape[1]
        try:
            objective = split_alarm_share(self.options.choose_objective(), 2 if self.options.scorer else 1)
            return learn_details(paths, groups[good], side_px, objective, self._depth_bits)
        except ModelError as error:
            log.warning("The version does not search for small defects. %s", error)
            return None


def _find_band(vote: SoftVote, probabilities: VoterProbabilities) -> CascadeBand | None:
    """Returns the cascade band: the range of defect probabilities in which LeNet cannot decide alone about a picture.

    Returns None if the version has no LeNet, or if only one network has a weight above 0.
    """
    has_cascade = "lenet" in vote.names and np.count_nonzero(vote.weights) > 1
    return find_cascade_band(vote, "lenet", probabilities) if has_cascade else None


def learn_part(pictures: LabelledPictures) -> PartReference | None:
    """Learns from the good parts in `pictures` what a whole part looks like (part reference).

    Returns None, and logs the reason, if the pictures show no whole part, such as pictures of a texture. Without a part reference, an
    inspector judges every picture, even if the picture shows no part.
    """
    try:
        good = pictures.select(pictures.labels == pictures.ok_class)
        return learn_part_reference(good.pixels, good.areas)
    except ModelError as error:
        log.warning("No part reference could be learned, so an inspector judges every picture, even if it shows no part. %s", error)
        return None


class _CurveFiles:
    """The files with the training curves of a network. The PNG is drawn at most every ten seconds, because drawing takes long."""

    def __init__(self, folder: Path, network: str) -> None:
        self._folder = folder
        self._network = network
        self._history: tuple[EpochResult, ...] = ()
        self._drawn: tuple[EpochResult, ...] = ()
        self._draw_at_s = 0.0

    def save(self, history: Sequence[EpochResult]) -> None:
        """Writes the JSON file, and draws the picture if the last one is old."""
        self._history = tuple(history)
        curves = {"network": self._network, "epochs": [asdict(epoch) for epoch in history]}
        write_atomically(self._folder / f"{self._network}.json", json.dumps(curves, indent=2) + "\n")
        if time.monotonic() >= self._draw_at_s:
            self.draw()

    def draw(self) -> None:
        """Draws the picture, unless it already shows all epochs."""
        if self._history != self._drawn:
            write_atomically(self._folder / f"{self._network}.png", draw_curves(self._network, self._history))
            self._drawn, self._draw_at_s = self._history, time.monotonic() + _DRAWING_INTERVAL_S


def draw_curves(title: str, history: Sequence[EpochResult]) -> bytes:
    """Returns a PNG with the curves of loss and accuracy over the epochs, for training and validation pictures."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    numbers = [epoch.number for epoch in history]
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [epoch.loss for epoch in history], label="training")
    left.plot(numbers, [epoch.validation_loss for epoch in history], label="validation")
    left.set(title=f"{title}: loss", xlabel="epoch", ylabel="nats", yscale="log")
    right.plot(numbers, [epoch.accuracy for epoch in history], label="training")
    right.plot(numbers, [epoch.validation_accuracy for epoch in history], label="validation")
    right.set(title=f"{title}: accuracy", xlabel="epoch")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()


def measure_validation(combination: Combination, probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> dict[str, float]:
    """Returns figures of the ensemble and of each network on the validation pictures. The keys are the names of figures in the manifest.

    Misses and false alarms are counted as if there were no review band. The figure `reviews` is the number of pictures in the review band,
    so a picture can count as a miss and as a review.
    """
    vote = combination.vote
    is_defect = labels != vote.ok_class
    probability = vote.compute_defect_probability(probabilities)
    is_called_defect = probability >= vote.threshold
    result = {
        "pictures": float(len(labels)),
        "accuracy": float((is_called_defect == is_defect).mean()),
        "misses": float((is_defect & ~is_called_defect).sum()),
        "false_alarms": float((~is_defect & is_called_defect).sum()),
        "reviews": float(((probability >= vote.low) & (probability < vote.high)).sum()),
        "cost_per_picture": combination.cost,
        "cross_entropy": combination.cross_entropy,
        "better_than_members": float(combination.beats_members),
    }
    for index, name in enumerate(vote.names):
        alone = replace(vote, weights=np.eye(len(vote.names))[index], temperature=1.0).compute_defect_probability(probabilities)
        result[f"{name}_accuracy_at_half"] = float(((alone >= 0.5) == is_defect).mean())
        result[f"{name}_cost_per_picture"] = combination.member_costs[index]
        result[f"{name}_cross_entropy"] = combination.member_cross_entropies[index]
    return result


def choose_golden_pictures(probability: npt.NDArray[np.float64], edges: tuple[float, ...], seed: int) -> npt.NDArray[np.int64]:
    """Chooses pictures for the golden set, evenly spread over the ranking by defect `probability`. Returns their indices.

    A picture near one of `edges` (the threshold and the ends of the review band) is left out, because rounding could change its label.
    """
    margin = np.min([np.abs(probability - edge) for edge in edges], axis=0)
    candidates = np.flatnonzero(margin > 2 * GOLDEN_TOLERANCE)
    if len(candidates) == 0:
        candidates = np.argsort(margin)[-1:]
    shuffled = np.random.default_rng(seed).permutation(candidates)
    ranked = shuffled[np.argsort(probability[shuffled], kind="stable")]
    return ranked[np.unique(np.linspace(0, len(ranked) - 1, GOLDEN_PICTURES).astype(np.int64))]
