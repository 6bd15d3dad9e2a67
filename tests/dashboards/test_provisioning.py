"""Pushing dashboards and alerts to a Grafana: differences first, all changes or none, and only what Castline owns."""

from __future__ import annotations

import copy
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from dashboards.catalogue import ALERTS, PAGES
from dashboards.grafana import Grafana, GrafanaError
from dashboards.provisioning import ProvisioningOptions, apply_changes, list_desired, plan_changes
from deploy.supervisor.ports import free_ports
from streams.errors import SettingsError
from tests.dashboards.fake_grafana import ADMIN, EDITOR, VIEWER, FakeGrafana
from tests.dashboards.live_plant import CASTLINE, run_castline

OPTIONS = ProvisioningOptions(webhook_url="https://calls.example/secret-path")
# Data source, folder and contact point come to alerts and dashboards.
EVERYTHING = 3 + len(ALERTS) + len(PAGES)


@pytest.fixture
def fake() -> Iterator[FakeGrafana]:
    grafana = FakeGrafana()
    yield grafana
    grafana.close()


def push(fake: FakeGrafana, token: str = ADMIN, options: ProvisioningOptions = OPTIONS) -> list[str]:
    """Returns a line for each change."""
    lines: list[str] = []
    grafana = Grafana(fake.url, token)
    apply_changes(grafana, plan_changes(grafana, list_desired(options)), lines.append)
    return lines


def copy_content(fake: FakeGrafana) -> object:
    """Returns everything that the Grafana has, without ids and versions."""
    dashboards = {uid: {**saved, "dashboard": {**saved["dashboard"], "version": 0, "id": 0}} for uid, saved in fake.dashboards.items()}
    sources = {uid: {**source, "version": 0} for uid, source in fake.datasources.items()}
    rules = {uid: {**rule, "id": 0} for uid, rule in fake.rules.items()}
    return copy.deepcopy((sources, sorted(fake.folders), dashboards, rules, fake.contacts))


def test_an_empty_grafana_gets_everything(fake: FakeGrafana) -> None:
    assert len(push(fake)) == EVERYTHING
    assert set(fake.dashboards) == {page.uid for page in PAGES}
    assert set(fake.rules) == {alert.uid for alert in ALERTS}
    assert {saved["folderUid"] for saved in fake.dashboards.values()} == set(fake.folders) == {"castline"}
    assert set(fake.datasources) == {"castline-prometheus"}
    assert fake.contacts["castline-contact"]["settings"]["url"] == OPTIONS.webhook_url


def test_the_second_push_changes_nothing(fake: FakeGrafana) -> None:
    push(fake)
    fake.writes.clear()
    assert push(fake) == []
    assert fake.writes == []


def test_changes_of_a_person_are_shown_and_reverted(fake: FakeGrafana) -> None:
    push(fake)
    before = copy_content(fake)
    fake.edit("castline-plant", title="Mine")
    fake.rules["castline-line-silent"]["for"] = "1h"
    grafana = Grafana(fake.url, ADMIN)
    changes = [change for change in plan_changes(grafana, list_desired(OPTIONS)) if change.action != "keep"]
    assert [(change.action, change.uid) for change in changes] == [("update", "castline-line-silent"), ("update", "castline-plant")]
    assert '- "for": "1h",' in changes[0].format_lines()
    assert '+ "title": "Castline: plant",' in changes[1].format_lines()
    assert push(fake) == ["updated alert rule castline-line-silent", "updated dashboard castline-plant"]
    assert copy_content(fake) == before


def test_a_dashboard_moved_to_another_folder_comes_back(fake: FakeGrafana) -> None:
    push(fake)
    fake.folders["other"] = {"uid": "other", "title": "Other", "version": 1, "id": 9}
    fake.dashboards["castline-line"]["folderUid"] = "other"
    assert push(fake) == ["updated dashboard castline-line"]
    assert fake.dashboards["castline-line"]["folderUid"] == "castline"


def test_only_resources_of_castline_are_removed(fake: FakeGrafana) -> None:
    push(fake)
    ours, theirs = (
        {"uid": "castline-old", "title": "Old", "tags": ["castline"]},
        {"uid": "shift-plan", "title": "Plan", "tags": ["castline"]},
    )
    for document, folder in ((ours, "castline"), (theirs, "castline"), ({**ours, "uid": "castline-copy"}, "")):
        fake.dashboards[str(document["uid"])] = {"dashboard": {**document, "id": 5, "version": 1}, "folderUid": folder}
    fake.rules["castline-old-rule"] = {"uid": "castline-old-rule", "folderUID": "castline"}
    fake.rules["of-the-press"] = {"uid": "of-the-press", "folderUID": "press"}
    assert push(fake) == ["removed alert rule castline-old-rule", "removed dashboard castline-old"]
    assert {"shift-plan", "castline-copy"} <= set(fake.dashboards)
    assert "of-the-press" in fake.rules


def test_a_dashboard_saved_by_a_person_at_the_same_time_is_not_overwritten(fake: FakeGrafana) -> None:
    push(fake)
    fake.edit("castline-gates", title="Mine")
    fake.edit("castline-kafka", title="Mine as well")
    grafana = Grafana(fake.url, ADMIN)
    changes = plan_changes(grafana, list_desired(OPTIONS))
    fake.edit("castline-kafka", title="Saved meanwhile")
    with pytest.raises(
        GrafanaError, match=r"dashboard castline-kafka: .*somebody else changed the object.*412.*Nothing was changed"
    ) as refusal:
        apply_changes(grafana, changes)
    assert refusal.value.status == 412
    assert fake.dashboards["castline-kafka"]["dashboard"]["title"] == "Saved meanwhile"
    assert fake.dashboards["castline-gates"]["dashboard"]["title"] == "Mine", "the change before is undone"


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [
        ("token-of-nobody", 401, "Grafana does not know the token"),
        (VIEWER, 403, "may not write to Grafana. Give its service account the role Admin"),
        (EDITOR, 403, "may not write to Grafana. Give its service account the role Admin"),
    ],
)
def test_a_token_without_rights_changes_nothing(fake: FakeGrafana, token: str, status: int, words: str) -> None:
    with pytest.raises(GrafanaError, match=words) as refusal:
        push(fake, token)
    assert refusal.value.status == status
    assert fake.writes == []


@pytest.mark.parametrize("options", [OPTIONS, ProvisioningOptions(datasource_uid="grafanacloud-prom")], ids=["own", "of-the-stack"])
@pytest.mark.parametrize("at", ["/v1/provisioning/alert-rules", "/dashboards/db"])
def test_a_failure_in_the_middle_leaves_the_grafana_as_it_was(fake: FakeGrafana, at: str, options: ProvisioningOptions) -> None:
    before, seen = copy_content(fake), []

    def fail_at_the_third(method: str, path: str) -> tuple[int, object] | None:
        if method == "POST" and path == at:
            seen.append(path)
        return (500, {"message": "database is locked"}) if len(seen) == 3 and method == "POST" else None

    fake.fail = fail_at_the_third
    with pytest.raises(GrafanaError, match=r"database is locked.*Nothing was changed"):
        push(fake, options=options)
    assert len(fake.writes) > 3
    assert copy_content(fake) == before


def test_changes_that_cannot_be_undone_are_named(fake: FakeGrafana) -> None:
    def fail_late(method: str, path: str) -> tuple[int, object] | None:
        return (500, {"message": "disk full"}) if method == "DELETE" or path == "/dashboards/db" else None

    fake.fail = fail_late
    with pytest.raises(GrafanaError, match=r"could not be undone: .*folder castline, data source castline-prometheus"):
        push(fake)


def test_a_foreign_data_source_of_the_same_name_is_left_alone(fake: FakeGrafana) -> None:
    fake.datasources["mine"] = {"uid": "mine", "name": "Castline", "version": 1}
    with pytest.raises(GrafanaError, match="that Castline does not own"):
        push(fake)
    assert fake.writes == []


def test_a_hosted_stacks_own_data_source_is_used(fake: FakeGrafana) -> None:
    push(fake, options=ProvisioningOptions(datasource_uid="grafanacloud-prom"))
    assert fake.datasources == {}
    text = json.dumps([*fake.dashboards.values(), *fake.rules.values()])
    assert "castline-prometheus" not in text
    assert "grafanacloud-prom" in text


def test_alerts_can_be_left_to_the_alertmanager(fake: FakeGrafana) -> None:
    push(fake)
    lines = push(fake, options=ProvisioningOptions(webhook_url=OPTIONS.webhook_url, with_alerts=False))
    assert len(lines) == len(ALERTS)
    assert fake.rules == {}


def test_a_server_that_cannot_list_rules_gets_them_too(fake: FakeGrafana) -> None:
    fake.lists_rules = False
    assert len(push(fake)) == EVERYTHING
    assert push(fake) == []


def test_an_old_grafana_is_refused(fake: FakeGrafana) -> None:
    fake.version = "9.2.20"
    with pytest.raises(GrafanaError, match=r"has version 9\.2\.20. Upgrade it to 9\.3 or later"):
        push(fake)
    assert fake.writes == []


def test_an_address_without_a_grafana_is_named() -> None:
    with pytest.raises(GrafanaError, match="No Grafana answers"):
        plan_changes(Grafana(f"http://localhost:{free_ports()}", ADMIN), [])


def test_a_hosted_stack_behind_a_path_and_tls_is_reached(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    fake = FakeGrafana(prefix="/grafana", tls=context)
    try:
        grafana = Grafana(f"{fake.url}/", ADMIN, ca_file=str(trusted))
        apply_changes(grafana, plan_changes(grafana, list_desired(OPTIONS)))
        assert len(fake.writes) == EVERYTHING
        with pytest.raises(GrafanaError, match=r"does not trust the certificate of"):
            plan_changes(Grafana(fake.url, ADMIN), [])
        with pytest.raises(GrafanaError, match="Check whether --url lacks a path"):
            plan_changes(Grafana(fake.url.removesuffix("/grafana"), ADMIN, ca_file=str(trusted)), [])
    finally:
        fake.close()


@pytest.mark.parametrize("url", ["stack.grafana.net", "ftp://host", "https://", "https://me:pass@host", "https://host/?x=1"])
def test_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="--url: "):
        Grafana(url, ADMIN)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak"])
def test_an_invalid_token_is_refused(token: str) -> None:
    with pytest.raises(SettingsError, match="GRAFANA_TOKEN"):
        Grafana("http://localhost", token)


Castline = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def castline(fake: FakeGrafana) -> Castline:
    def call(word: str, *arguments: str, token: str = ADMIN) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
        environment |= {"GRAFANA_TOKEN": token, "GRAFANA_ALERT_WEBHOOK": OPTIONS.webhook_url}
        command = [sys.executable, str(CASTLINE), "dashboards", word, "--url", fake.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)

    return call


def test_the_command_shows_pushes_checks_and_pulls(fake: FakeGrafana, tmp_path: Path) -> None:
    environment = {"GRAFANA_TOKEN": ADMIN, "GRAFANA_ALERT_WEBHOOK": OPTIONS.webhook_url}

    def castline(word: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_castline(environment, "dashboards", word, "--url", fake.url, *arguments)

    dry_run = castline("push", "--dry-run")
    assert dry_run.returncode == 0, dry_run.stderr
    assert f"{EVERYTHING} to create" in dry_run.stdout
    assert fake.writes == []
    assert castline("check").returncode == 1
    pushed = castline("push")
    assert pushed.returncode == 0, pushed.stderr
    assert "created dashboard castline-plant" in pushed.stdout
    assert OPTIONS.webhook_url not in pushed.stdout
    checked = castline("check")
    assert (checked.returncode, checked.stdout) == (0, f"0 to create, 0 to update, 0 to remove, {EVERYTHING} to keep\n")
    fake.edit("castline-plant", title="Mine")
    assert castline("check").returncode == 1
    assert castline("pull", "--into", str(tmp_path)).returncode == 0
    assert json.loads((tmp_path / "dashboard/castline-plant.json").read_text())["title"] == "Mine"
    assert not (tmp_path / "contact-point").exists()


def test_the_command_reports_an_error_in_a_sentence(castline: Castline) -> None:
    refused = castline("push", token="token-of-nobody")
    assert refused.returncode == 3
    assert refused.stderr.startswith("castline: ")
    assert "Traceback" not in refused.stderr
    assert "token-of-nobody" not in refused.stderr
