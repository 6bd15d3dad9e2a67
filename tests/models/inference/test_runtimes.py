"""The runtimes: each gives the probabilities of the version; one that is not installed or predicts otherwise is refused with a reason."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models.inference.ensemble import open_ensemble
from models.inference.golden_set import check_golden_set, load_golden_pixels
from models.inference.runtimes import conversion
from models.inference.runtimes.runtime import (
    RUNTIMES,
    Runtime,
    choose_concurrent_calls,
    find_obstacle,
    open_runtime,
    resolve_runtime,
    runtime_record_path,
)
from models.inference.runtimes.selection import select_runtime, write_runtime_report
from models.networks import factory as networks
from models.registry import LocalRegistry, Version, open_registry
from models.registry.version_report import read_runtime_report
from streams.errors import ModelError

USABLE = [name for name in RUNTIMES if not find_obstacle(name)]
EXACT = ("tensorflow", "openvino", "litert")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests have their own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def version(models_root: Path) -> Version:
    return open_registry(models_root).open_version("tiny")


def make_pixels(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 255, (count, 64, 64)).astype(np.uint8)


def test_the_import_of_openvino_reports_nothing_and_starts_no_process(tmp_path: Path) -> None:
    """The telemetry of OpenVINO would make a folder in the home folder, and send its report from a forked process."""
    program = (
        "import multiprocessing.process, models.inference.runtimes.openvino\nassert next(multiprocessing.process._process_counter) == 1"
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "HOME": str(tmp_path)}, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_openvino_and_litert_are_installed_where_the_tests_run() -> None:
    assert {"tensorflow", "openvino", "openvino-int8", "litert", "litert-int8"} <= set(USABLE)


@pytest.mark.parametrize("name", USABLE)
def test_every_runtime_serves_the_version(version: Version, name: str) -> None:
    """The runtime passes the golden set and computes a batch that fills no shape, LeNet's resampling included."""
    ensemble = open_ensemble(version, name, (1, 4, 16))
    pixels = make_pixels(11)
    found = ensemble.runtime.predict(pixels)
    assert found.shape == (11, 2, 2)
    assert np.allclose(found.sum(axis=-1), 1, atol=1e-2)
    expected = open_runtime(version, "tensorflow", (16,)).predict(pixels)
    assert np.allclose(found, expected, atol=1e-4 if name in EXACT else 0.1)
    with pytest.raises(ValueError, match="at most 16"):
        ensemble.runtime.predict(make_pixels(17))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("largest", [1, 4])
def test_small_batches_are_warmed_up_and_computed(version: Version, name: str, largest: int) -> None:
    runtime = open_runtime(version, name, tuple(sorted({1, largest})))
    runtime.warm_up()
    assert runtime.predict(make_pixels(largest)).shape == (largest, 2, 2)


@pytest.mark.parametrize("name", USABLE)
def test_concurrent_calls_get_their_own_probabilities(version: Version, name: str) -> None:
    """The inspector computes two batches at once."""
    runtime = open_runtime(version, name, (1, 4, 16), at_once=2)
    runtime.warm_up()
    batches = [make_pixels(count) for count in (1, 3, 16, 7)]
    alone = [runtime.predict(batch) for batch in batches]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(runtime.predict, batches * 20))
    for found, expected in zip(together, alone * 20, strict=True):
        assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (2, 2), (16, 2)])
def test_two_calls_are_made_at_once_on_two_threads_or_more(threads: int, expected: int) -> None:
    assert choose_concurrent_calls(threads) == expected


def test_a_runtime_whose_library_is_missing_names_the_extra() -> None:
    assert re.match(
        r"ai_edge_litert is not installed; .*castline\[litert\]", find_obstacle("litert-int8", find_library=lambda library: None)
    )
    assert find_obstacle("litert-int8") == ""


def test_an_unknown_runtime_is_refused_and_the_known_ones_are_named(version: Version) -> None:
    with pytest.raises(ModelError, match=r"There is no runtime .onnx.. Choose auto, tensorflow, .*openvino-int8"):
        open_runtime(version, "onnx")


def test_a_damaged_conversion_is_made_again(version: Version) -> None:
    path = conversion.get_flatbuffer(version, "float32")
    checksum = hashlib.sha256(path.read_bytes()).digest()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert hashlib.sha256(conversion.get_flatbuffer(version, "float32").read_bytes()).digest() == checksum
    assert path.parent.parent == conversion.flatbuffer_folder()
    assert not path.is_relative_to(version.folder)


class ContraryRuntime:
    """Returns the probability of the other class."""

    name, max_batch = "contrary", 8

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def warm_up(self) -> None: ...

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return 1 - self._runtime.predict(pixels)


def test_a_runtime_that_predicts_differently_may_not_serve(version: Version) -> None:
    runtime = open_runtime(version, "tensorflow", (8,))
    check_golden_set(version, runtime)
    with pytest.raises(ModelError, match="contrary judges the golden set differently"):
        check_golden_set(version, ContraryRuntime(runtime))


def test_a_runtime_that_changes_a_label_of_given_pictures_is_refused(version: Version, tmp_path: Path) -> None:
    class WaveringRuntime(ContraryRuntime):
        """Passes the golden set, and returns the other class for all other pictures."""

        def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            probabilities = self._runtime.predict(pixels)
            return probabilities if np.array_equal(pixels, golden[: len(pixels)]) else 1 - probabilities

    def open_named(of: Version, name: str, batches: Sequence[int]) -> Runtime:
        runtime = open_runtime(of, "tensorflow", batches)
        return WaveringRuntime(runtime) if name == "contrary" else runtime

    golden = load_golden_pixels(version)[:8]
    try:
        selection = select_runtime(version, ("tensorflow", "contrary"), (8,), open_named, measured_s=0.1, pixels=make_pixels(20))
        assert selection.chosen == "tensorflow"
        write_runtime_report(tmp_path / "tiny.report", version, selection, 20)
        report = read_runtime_report(LocalRegistry(tmp_path), "tiny")
        assert report is not None
        assert (report.pictures, report.chosen, list(report.refused)) == (20, "tensorflow", ["contrary"])
        assert re.fullmatch(r"The runtime contrary labels \d+ of 20 pictures differently from tensorflow\.", selection.refused["contrary"])
    finally:
        runtime_record_path(version).unlink(missing_ok=True)


def test_the_fastest_runtime_that_passes_is_recorded_and_used_and_refused_ones_are_named(version: Version) -> None:
    def open_named(of: Version, name: str, batches: Sequence[int]) -> Runtime:
        if name == "contrary":
            return ContraryRuntime(open_runtime(of, "tensorflow", batches))
        return open_runtime(of, name, batches)

    try:
        selection = select_runtime(version, ("tensorflow", "openvino", "contrary"), (1, 8), open_named, measured_s=0.1)
        assert {(each.runtime, each.batch) for each in selection.measured} == {(n, b) for n in ("tensorflow", "openvino") for b in (1, 8)}
        assert "differently" in selection.refused["contrary"]
        assert resolve_runtime(version, "auto") == selection.chosen == open_runtime(version, "auto", (1,)).name
        open_registry(version.folder.parent).open_version("tiny")  # the record lies beside the version, whose files are unchanged
    finally:
        runtime_record_path(version).unlink(missing_ok=True)


def test_without_a_record_float32_is_used_on_every_processor(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.inference.runtimes.runtime.has_bfloat16", lambda: True)
    assert not runtime_record_path(version).exists()
    assert resolve_runtime(version, "auto") == "tensorflow"


@pytest.mark.parametrize("side_px", [64, 75, 129, 160])
def test_a_folded_network_computes_the_same_probabilities(side_px: int) -> None:
    voter = networks.make_voter("alexnet", side_px, {"dense_width": 16, "maps": 0.25})
    networks.seed_weights(side_px)
    network = networks.build_network(voter, 2)
    grey = np.random.default_rng(side_px).random((5, side_px, side_px, 1), np.float32)
    computed = np.asarray(conversion.fold_first_convolution(network)(grey))
    assert np.allclose(computed, np.asarray(network(grey, training=False)), atol=1e-5)


def test_a_network_that_cannot_be_folded_is_computed_as_it_is() -> None:
    network = networks.build_network(networks.make_voter("lenet", 64, {}), 2)
    grey = np.random.default_rng(1).random((2, 64, 64, 1), np.float32)
    assert np.array_equal(np.asarray(conversion.fold_first_convolution(network)(grey)), np.asarray(network(grey, training=False)))
