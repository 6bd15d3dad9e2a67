"""The files of Prometheus and Alertmanager, as their own tools judge them, and the command that writes them."""

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
from dashboards.alerts.catalogue import INHIBITIONS
from dashboards.inventory import declared
from docs.generator.reference import list_metrics
from tests.dashboards.running import castline_here
from tests.debian import program

SITE = generate.ROOT / "deploy/packaging/prometheus"
HOSTED = {"REMOTE_WRITE_URL": "https://prometheus.example/api/prom/push", "REMOTE_WRITE_TOKEN": "of-the-stack"}

Castline = Callable[..., subprocess.CompletedProcess[str]]


def run(*call: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def castline(tmp_path: Path) -> Castline:
    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        with contextlib.chdir(tmp_path):
            return castline_here(variables, "metrics", *arguments)

    return call


def written(folder: Path) -> Any:
    return yaml.safe_load((folder / "prometheus.yml").read_text())


def test_promtool_takes_the_sites_configuration() -> None:
    done = run(program("promtool"), "check", "config", str(SITE / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_amtool_takes_the_alertmanagers() -> None:
    done = run(program("amtool"), "check-config", str(SITE / "alertmanager.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(INHIBITIONS)} inhibit rules" in done.stdout


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "on-call"), ("warning", "shift")])
def test_an_alert_reaches_those_whom_its_severity_calls(severity: str, receiver: str) -> None:
    config = f"--config.file={SITE / 'alertmanager.yml'}"
    done = run(program("amtool"), "config", "routes", "test", config, f"severity={severity}", "plant=north", "line=line-1")
    assert done.stdout.split() == [receiver], done.stderr


def test_a_line_is_one_call() -> None:
    assert yaml.safe_load((SITE / "alertmanager.yml").read_text())["route"]["group_by"] == ["plant", "line"]


def test_the_command_configures_a_plants_prometheus(castline: Castline, tmp_path: Path) -> None:
    done = castline(
        "prometheus", "--plant", "north", "--folder", "watch", "--alertmanager", "127.0.0.1:9093", CASTLINE_SERVICE__RUN_DIR="run"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("prometheus --config.file=watch/prometheus.yml ")
    folder = tmp_path / "watch"
    checked = run(program("promtool"), "check", "config", str(folder / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "remote_write" not in written(folder)
    (scrape,) = written(folder)["scrape_configs"]
    assert scrape["file_sd_configs"][0]["files"] == [str(tmp_path / "run/targets/*.json")]
    assert not (folder / "remote-write.token").exists()


@pytest.mark.parametrize("agent", [False, True])
def test_a_hosted_stacks_token_stands_in_a_file_of_its_owner(castline: Castline, tmp_path: Path, agent: bool) -> None:
    done = castline("prometheus", "--plant", "north", "--folder", "watch", *(["--agent"] if agent else []), **HOSTED)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "watch"
    flags = ["--agent"] if agent else []
    checked = run(program("promtool"), "check", "config", *flags, str(folder / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (remote,) = written(folder)["remote_write"]
    token = Path(remote["authorization"]["credentials_file"])
    assert token.read_text() == HOSTED["REMOTE_WRITE_TOKEN"]
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert HOSTED["REMOTE_WRITE_TOKEN"] not in (folder / "prometheus.yml").read_text() + done.stdout
    assert remote["queue_config"]["max_backoff"] == "1m"
    assert ("rule_files" in written(folder)) is not agent
    assert "retention" in done.stdout


def test_a_stack_with_a_user_gets_the_token_as_its_password(castline: Castline, tmp_path: Path) -> None:
    done = castline("prometheus", "--plant", "north", "--folder", "watch", **HOSTED, REMOTE_WRITE_USER="123456")
    assert done.returncode == 0, done.stderr
    (remote,) = written(tmp_path / "watch")["remote_write"]
    assert remote["basic_auth"]["username"] == "123456"
    assert "authorization" not in remote


@pytest.mark.parametrize(
    ("variables", "arguments", "words"),
    [
        ({"REMOTE_WRITE_URL": HOSTED["REMOTE_WRITE_URL"]}, (), "Set both, or neither"),
        ({**HOSTED, "REMOTE_WRITE_URL": "http://prometheus.example/push"}, (), "Give an https address"),
        ({}, ("--agent",), "An agent stores no samples"),
    ],
)
def test_what_cannot_work_is_refused(
    castline: Castline, tmp_path: Path, variables: dict[str, str], arguments: tuple[str, ...], words: str
) -> None:
    done = castline("prometheus", "--plant", "north", "--folder", "watch", *arguments, **variables)
    assert done.returncode == 3
    assert words in done.stderr
    assert not (tmp_path / "watch").exists()


def test_the_command_lists_what_the_page_documents(castline: Castline) -> None:
    done = castline("list", "--json")
    listed = {one["name"]: one["type"] for one in json.loads(done.stdout)}
    assert listed == {metric.name: metric.type for metric in list_metrics()} == {one.name: one.kind for one in declared()}
    assert len(castline("list").stdout.splitlines()) == len(listed)
