"""The configuration of Prometheus and Alertmanager, checked with their own tools, and the command that writes it."""

from __future__ import annotations

import contextlib
import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import generate
from dashboards.catalogue import INHIBITIONS
from dashboards.promql import list_declared_metrics
from docs.generator.reference import list_metrics
from tests.dashboards.live_plant import run_castline
from tests.debian import find_program

SITE = generate.ROOT / "deploy/packaging/prometheus"
HOSTED = {"REMOTE_WRITE_URL": "https://prometheus.example/api/prom/push", "REMOTE_WRITE_TOKEN": "of-the-stack"}

Castline = Callable[..., subprocess.CompletedProcess[str]]


def run(*call: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def castline(tmp_path: Path) -> Castline:
    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        with contextlib.chdir(tmp_path):
            return run_castline(variables, "metrics", *arguments)

    return call


def read_config(folder: Path) -> Any:
    return yaml.safe_load((folder / "prometheus.yml").read_text())


def test_promtool_accepts_the_configuration_of_the_site() -> None:
    result = run(find_program("promtool"), "check", "config", str(SITE / "prometheus.yml"))
    assert result.returncode == 0, result.stdout + result.stderr


def test_amtool_accepts_the_configuration_of_alertmanager() -> None:
    result = run(find_program("amtool"), "check-config", str(SITE / "alertmanager.yml"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(INHIBITIONS)} inhibit rules" in result.stdout


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "on-call"), ("warning", "shift")])
def test_the_severity_decides_who_receives_an_alert(severity: str, receiver: str) -> None:
    config = f"--config.file={SITE / 'alertmanager.yml'}"
    result = run(find_program("amtool"), "config", "routes", "test", config, f"severity={severity}", "plant=north", "line=line-1")
    assert result.stdout.split() == [receiver], result.stderr


def test_alerts_of_one_line_arrive_as_one_message() -> None:
    assert yaml.safe_load((SITE / "alertmanager.yml").read_text())["route"]["group_by"] == ["plant", "line"]


def test_the_command_configures_a_plants_prometheus(castline: Castline, tmp_path: Path) -> None:
    result = castline(
        "prometheus", "--plant", "north", "--folder", "watch", "--alertmanager", "127.0.0.1:9093", CASTLINE_SERVICE__RUN_DIR="run"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("prometheus --config.file=watch/prometheus.yml ")
    folder = tmp_path / "watch"
    checked = run(find_program("promtool"), "check", "config", str(folder / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "remote_write" not in read_config(folder)
    (scrape,) = read_config(folder)["scrape_configs"]
    assert scrape["file_sd_configs"][0]["files"] == [str(tmp_path / "run/targets/*.json")]
    assert not (folder / "remote-write.token").exists()


@pytest.mark.parametrize("agent", [False, True])
def test_the_token_of_a_hosted_stack_is_written_to_a_private_file(castline: Castline, tmp_path: Path, agent: bool) -> None:
    result = castline("prometheus", "--plant", "north", "--folder", "watch", *(["--agent"] if agent else []), **HOSTED)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "watch"
    flags = ["--agent"] if agent else []
    checked = run(find_program("promtool"), "check", "config", *flags, str(folder / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (remote,) = read_config(folder)["remote_write"]
    token = Path(remote["authorization"]["credentials_file"])
    assert token.read_text() == HOSTED["REMOTE_WRITE_TOKEN"]
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert HOSTED["REMOTE_WRITE_TOKEN"] not in (folder / "prometheus.yml").read_text() + result.stdout
    assert remote["queue_config"]["max_backoff"] == "1m"
    assert ("rule_files" in read_config(folder)) is not agent
    assert "retention" in result.stdout


def test_a_stack_with_a_user_gets_the_token_as_its_password(castline: Castline, tmp_path: Path) -> None:
    result = castline("prometheus", "--plant", "north", "--folder", "watch", **HOSTED, REMOTE_WRITE_USER="123456")
    assert result.returncode == 0, result.stderr
    (remote,) = read_config(tmp_path / "watch")["remote_write"]
    assert remote["basic_auth"]["username"] == "123456"
    assert "authorization" not in remote


@pytest.mark.parametrize(
    ("variables", "arguments", "words"),
    [
        ({"REMOTE_WRITE_URL": HOSTED["REMOTE_WRITE_URL"]}, (), "Set both, or remove REMOTE_WRITE_URL"),
        ({**HOSTED, "REMOTE_WRITE_URL": "http://prometheus.example/push"}, (), "Give an https address"),
        ({}, ("--agent",), "--agent needs"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    castline: Castline, tmp_path: Path, variables: dict[str, str], arguments: tuple[str, ...], words: str
) -> None:
    result = castline("prometheus", "--plant", "north", "--folder", "watch", *arguments, **variables)
    assert result.returncode == 3
    assert words in result.stderr
    assert not (tmp_path / "watch").exists()


def test_the_command_lists_the_metrics_that_the_documentation_lists(castline: Castline) -> None:
    result = castline("list", "--json")
    listed = {row["name"]: row["type"] for row in json.loads(result.stdout)}
    assert listed == {metric.name: metric.type for metric in list_metrics()}
    assert listed == {metric.name: metric.kind for metric in list_declared_metrics()}
    assert len(castline("list").stdout.splitlines()) == len(listed)
