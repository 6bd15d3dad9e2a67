"""Compares LeNet and AlexNet with two light networks from the literature: MobileNetV2 and NASNetMobile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.evaluation.experiments.experiment import CellProgress, ExperimentCallback, ExperimentFolder, ResultTable, format_interval
from models.networks.factory import build_network, make_voter
from models.networks.framework import keras, tf
from models.networks.light import LIGHT_NETWORKS, light_network
from models.training.labelled_pictures import LabelledPictures
from models.training.near_duplicates import group_near_duplicates
from models.training.options import TrainingOptions
from models.training.split import split_by_group
from models.training.trainer import SplitPictures, predict

NETWORKS = ("lenet", "alexnet", *LIGHT_NETWORKS)
TEXTS = {"lenet": "LeNet", "alexnet": "AlexNet", "mobilenet-v2": "MobileNetV2", "nasnet-mobile": "NASNetMobile"}
# The time of each network is measured in this many rounds. In each round, the networks take turns, because the load of the machine changes.
ROUNDS = 15
CALLS_PER_ROUND = 8


@dataclass(frozen=True)
class LightExperiment:
    """Trains each network once for each of `seeds`.

    All networks get the same pictures with the same side in pixels, and learn for the same number of epochs. Each seed splits the pictures
    into training and validation pictures in its own way. `folder` keeps the results of finished trainings.
    """

    options: TrainingOptions
    seeds: tuple[int, ...]
    folder: Path

    def run(self, pictures: LabelledPictures, callback: ExperimentCallback) -> ResultTable:
        """Runs the trainings that have no result in the folder yet, measures the speed, and returns the table of all results."""
        folder, classes = ExperimentFolder(self.folder), len(pictures.classes)
        folder.claim({"experiment": "light", "options": self.options.model_dump(), "pictures": pictures.fingerprint()})
        groups = group_near_duplicates(pictures.pixels, pictures.checksums, self.options.near_bits, self.options.near_rings)
        cells = [(name, seed) for seed in self.seeds for name in NETWORKS]
        accuracies: dict[str, list[float]] = {name: [] for name in NETWORKS}
        for number, (name, seed) in enumerate(cells):
            progress = CellProgress(callback, f"{name}-seed-{seed}", number, len(cells))
            if not folder.is_finished(progress.cell):
                self._run_cell(folder, name, seed, pictures, groups, progress)
            accuracies[name].append(float(folder.load_result(progress.cell)["is_right"].mean()))
            callback.on_cell_progress(progress.cell, number + 1, len(cells))
        if not folder.is_finished("speed"):
            folder.save_result("speed", measure_speed({name: self.build(name, classes) for name in NETWORKS}))
        speed = folder.load_result("speed")
        parameters = {name: self.build(name, classes).count_params() for name in NETWORKS}
        return make_light_table(self.options, accuracies, {name: speed[name].astype(np.float64) for name in NETWORKS}, parameters)

    def build(self, name: str, classes: int) -> keras.Model:
        """Returns the untrained network `name`, one of NETWORKS."""
        if name in LIGHT_NETWORKS:
            return light_network(name, classes, self.options.side_px)
        (voter,) = (voter for voter in self.options.voters() if voter.network == name)
        return build_network(make_voter(voter.network, self.options.side_px, voter.options), classes)

    def _run_cell(
        self,
        folder: ExperimentFolder,
        name: str,
        seed: int,
        pictures: LabelledPictures,
        groups: npt.NDArray[np.int32],
        progress: CellProgress,
    ) -> None:
        validates = split_by_group(pictures.labels, groups, self.options.validation_share, seed)
        keras.utils.set_random_seed(seed)
        network = self.build(name, len(pictures.classes))
        recipe = self.options.recipe_of("lenet" if name == "lenet" else "alexnet")
        folder.train_network(network, recipe, seed, SplitPictures(pictures.pixels, pictures.labels, validates), progress)
        is_right = predict(network, pictures.pixels[validates]).argmax(axis=1) == pictures.labels[validates]
        folder.save_result(progress.cell, {"is_right": is_right})


def measure_speed(networks: dict[str, keras.Model]) -> dict[str, npt.NDArray[np.float64]]:
    """Returns the processor time for one picture in ms for each network, shape (ROUNDS,). The networks take turns.

    The processor time is measured, because the elapsed time would depend on the other programs of the machine.
    """
    computing = {name: _compile(network) for name, network in networks.items()}
    times = {name: np.empty(ROUNDS) for name in networks}
    for number in range(ROUNDS):
        for name, compute in computing.items():
            start_s = time.process_time()
            for _ in range(CALLS_PER_ROUND):
                compute()
            times[name][number] = 1000 * (time.process_time() - start_s) / CALLS_PER_ROUND
    return times


def _compile(network: keras.Model) -> Callable[[], object]:
    """Returns a function that lets `network` judge one picture. Runs the function once before, because the first run is slow."""
    picture = tf.zeros((1, *network.input_shape[1:]))
    function = tf.function(lambda pixels: network(pixels, training=False), autograph=False)

    def compute() -> object:
        return function(picture).numpy()

    compute()
    return compute


def make_light_table(
    options: TrainingOptions,
    accuracies: dict[str, list[float]],
    times_ms: dict[str, npt.NDArray[np.float64]],
    parameters: dict[str, int],
) -> ResultTable:
    """Returns the table of the experiment, with a row for each network.

    Each dictionary has an entry for each network.

    - `accuracies`: the accuracy with each seed.
    - `times_ms`: the processor time for one picture in each round.
    - `parameters`: the number of weights.
    """
    rows = []
    for name in NETWORKS:
        ratios = times_ms[name] / times_ms["alexnet"]
        rows.append(
            (
                TEXTS[name],
                f"{parameters[name]:,}",
                f"{np.median(times_ms[name]):.2f}",
                f"{np.median(ratios):.2f} ({np.quantile(ratios, 0.25):.2f} to {np.quantile(ratios, 0.75):.2f})",
                format_interval(accuracies[name]),
            )
        )
    return ResultTable(
        f"Light networks, {len(accuracies['alexnet'])} seeds, pictures of {options.side_px} px",
        ("network", "parameters", "ms a picture", "time as a multiple of AlexNet's", "accuracy"),
        tuple(rows),
        (
            f"Processor time to judge one picture alone: the median of {ROUNDS} rounds in turns, with the quartiles of the ratio to "
            "AlexNet in brackets.",
            f"Accuracy on validation pictures after {options.epochs} epochs, with at least {options.min_steps} batches: the mean over the "
            "seeds with the 95 % interval of Student's t distribution.",
        ),
    )
