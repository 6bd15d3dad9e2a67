"""The statistics of `castline bench compare`, and a short comparison of this checkout with itself."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.compare import InspectorCheckout, InspectorMeasurement, PairMeasurement, describe_comparison, estimate_median, summarise_pairs
from bench.inspector_process import make_bench_settings
from bench.protected_listeners import PROTECTIONS, ProtectedListeners
from streams.settings import Settings
from tests.processes import enable_ctrl_c

ROOT = Path(__file__).resolve().parents[2]
CASTLINE = Path(sys.executable).with_name("castline")


def make_pair(processor_ratio: float, throughput_ratio: float = 1.0, latencies_ms: tuple[float, ...] = ()) -> PairMeasurement:
    old = InspectorMeasurement(10.0, 100.0, latencies_ms)
    new = InspectorMeasurement(10.0 * processor_ratio, 100.0 * throughput_ratio, tuple(2 * latency_ms for latency_ms in latencies_ms))
    return PairMeasurement(old, new)


def test_the_interval_of_ten_pairs_reaches_from_the_second_smallest_to_the_second_largest() -> None:
    ratios = [1.0 + number / 100 for number in range(10)]
    random.Random(1).shuffle(ratios)
    estimate = estimate_median(ratios)
    assert estimate.median == pytest.approx(1.045)
    assert estimate.interval == pytest.approx((1.01, 1.08))


@pytest.mark.parametrize(("count", "left_out"), [(6, 0), (8, 0), (9, 1), (12, 2), (15, 3), (20, 5)])
def test_the_interval_leaves_out_as_many_values_as_the_sign_test_allows(count: int, left_out: int) -> None:
    """The numbers are those of published tables of the sign test."""
    values = [float(number) for number in range(count)]
    assert estimate_median(values).interval == (left_out, count - 1 - left_out)


def test_five_pairs_are_too_few_for_an_interval() -> None:
    comparison = summarise_pairs([make_pair(1.0)] * 5)
    assert comparison.processor_ratio.interval is None
    assert comparison.does_throughput_reach_old is None


def test_the_interval_contains_the_true_median_at_least_95_times_in_100() -> None:
    draw = random.Random(2)
    hits = 0
    for _ in range(2000):
        low, high = estimate_median([draw.lognormvariate(0, 0.15) for _ in range(10)]).interval or (0, 0)
        hits += low <= 1 <= high
    assert hits / 2000 >= 0.95


def test_three_per_cent_more_processor_time_is_no_slower_and_four_are() -> None:
    assert summarise_pairs([make_pair(1.029)] * 10).is_no_slower
    assert not summarise_pairs([make_pair(1.04)] * 10).is_no_slower


def test_one_disturbed_pair_changes_nothing() -> None:
    pairs = [make_pair(1.0, 1.0)] * 9 + [make_pair(3.0, 0.2)]
    comparison = summarise_pairs(pairs)
    assert comparison.processor_ratio.median == 1.0
    assert comparison.throughput_ratio.interval == pytest.approx((1.0, 1.0))


def test_a_throughput_that_is_lower_in_every_pair_does_not_reach_the_old_one() -> None:
    assert summarise_pairs([make_pair(1.0, 0.9 + number / 1000) for number in range(10)]).does_throughput_reach_old is False
    assert summarise_pairs([make_pair(1.0, 0.95 + number / 100) for number in range(10)]).does_throughput_reach_old is True


def test_latencies_of_all_turns_are_pooled() -> None:
    pairs = [make_pair(1.0, 1.0, (float(number), number + 1.0)) for number in range(0, 100, 2)]
    comparison = summarise_pairs(pairs, load_per_s=5.0)
    assert comparison.old_latency is not None
    assert comparison.new_latency is not None
    assert comparison.old_latency.p50_ms == pytest.approx(49.5)
    assert comparison.new_latency.p99_ms == pytest.approx(2 * comparison.old_latency.p99_ms)
    assert "p50 50 ms old, 99 ms new" in describe_comparison(comparison)[-1]


def test_a_checkout_without_an_environment_is_refused(tmp_path: Path) -> None:
    run = subprocess.run([CASTLINE, "bench", "compare", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 3
    assert "make setup" in run.stderr


def test_both_inspectors_use_the_versions_of_the_old_checkout_unless_settings_name_others(tmp_path: Path) -> None:
    old, settings = InspectorCheckout("old", tmp_path / "old"), write_settings(tmp_path / "castline.toml", tmp_path / "mine")
    assert InspectorCheckout("new", ROOT).read_sections(old.versions)["model"] == {"root": str(tmp_path / "old/models/versions")}
    assert InspectorCheckout("new", ROOT, settings).read_sections(old.versions)["model"]["root"] == str(tmp_path / "mine")


def write_settings(file: Path, models_root: Path) -> Path:
    file.write_text(f'[model]\nroot = "{models_root}"\nversion = "tiny"\nruntime = "litert"\n')
    return file


def test_this_checkout_with_scram_tls_and_signatures_is_compared_with_itself_without_them(models_root: Path, tmp_path: Path) -> None:
    settings = write_settings(tmp_path / "castline.toml", models_root)
    options = ["--pairs", "1", "--pictures", "64", "--json", *(f"--new-with={name}" for name in PROTECTIONS)]
    command: list[str | Path] = [CASTLINE, "--settings", settings, "bench", "compare", ROOT, *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode in (0, 1), run.stderr
    result = json.loads(run.stdout)
    assert len(result["pairs"]) == 1
    assert 0.2 < result["processor_ratio"]["median"] < 5
    assert 0 < result["old_processor_ms_per_picture"] < 1000
    assert result["new_pictures_per_s"] > 0
    assert run.returncode == int(not result["is_no_slower"])
    assert "pair 1 of 1, old first" in run.stderr


def test_each_protection_has_its_settings(tmp_path: Path) -> None:
    settings = make_bench_settings(Settings(), tmp_path)
    listeners = ProtectedListeners(settings, tmp_path)
    properties = listeners.make_properties()
    for protections in ((), ("scram",), ("tls",), ("scram", "tls"), PROTECTIONS):
        made = Settings.model_validate(listeners.make_sections(frozenset(protections)))
        assert made.bootstrap in properties["listeners"]
        assert made.kafka.security.startswith("sasl") == ("scram" in protections)
        assert made.kafka.security.endswith("tls") == ("tls" in protections)
        assert (made.signing.private_keys is not None) == ("signatures" in protections)


def is_inspector(process: psutil.Process) -> bool:
    """Whether the process is a running inspector. A process that has just ended is none."""
    try:
        return "inspector" in process.cmdline()
    except psutil.Error:
        return False


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_comparison_that_is_stopped_leaves_no_process_behind(models_root: Path, tmp_path: Path, stop_signal: signal.Signals) -> None:
    settings = write_settings(tmp_path / "castline.toml", models_root)
    # Few pictures are rendered sooner, and the comparison is stopped before it needs them.
    command: list[str | Path] = [CASTLINE, "--settings", settings, "bench", "compare", ROOT, "--pictures", "64"]
    bench = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=enable_ctrl_c)
    children: set[psutil.Process] = set()
    try:
        deadline_s = time.monotonic() + 120
        while not any(map(is_inspector, children)):
            assert time.monotonic() < deadline_s, "expected the bench to start an inspector"
            children |= set(psutil.Process(bench.pid).children(recursive=True))
            time.sleep(0.1)
        bench.send_signal(stop_signal)
        assert bench.wait(60) == (143 if stop_signal == signal.SIGTERM else 130)
    finally:
        bench.kill()
        bench.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
