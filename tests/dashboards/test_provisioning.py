"""Dashboards and alerts brought to a Grafana: differences first, all or nothing, and only what is Castline's."""

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

from dashboards.alerts.catalogue import ALERTS
from dashboards.catalogue import PAGES
from dashboards.desired import Wishes, wanted
from dashboards.grafana import Grafana, GrafanaError
from dashboards.provisioning import apply, plan
from deploy.supervisor.ports import free_ports
from streams.errors import SettingsError
from tests.dashboards.fake_grafana import ADMIN, EDITOR, VIEWER, FakeGrafana
from tests.dashboards.running import CASTLINE, castline_here

WISHES = Wishes(webhook="https://calls.example/secret-path")
EVERYTHING = 3 + len(ALERTS) + len(PAGES)  # data source, folder, contact point


@pytest.fixture
def fake() -> Iterator[FakeGrafana]:
    grafana = FakeGrafana()
    yield grafana
    grafana.close()


def push(fake: FakeGrafana, token: str = ADMIN, wishes: Wishes = WISHES) -> list[str]:
    """What was done."""
    done: list[str] = []
    grafana = Grafana(fake.url, token)
    apply(grafana, plan(grafana, wanted(wishes)), done.append)
    return done


def kept(fake: FakeGrafana) -> object:
    """All that the Grafana has, without the counters of changes."""
    shown = {uid: {**one, "dashboard": {**one["dashboard"], "version": 0, "id": 0}} for uid, one in fake.dashboards.items()}
    sources = {uid: {**one, "version": 0} for uid, one in fake.datasources.items()}
    return copy.deepcopy((sources, sorted(fake.folders), shown, {uid: {**one, "id": 0} for uid, one in fake.rules.items()}, fake.contacts))


def test_an_empty_grafana_gets_everything(fake: FakeGrafana) -> None:
    assert len(push(fake)) == EVERYTHING
    assert set(fake.dashboards) == {page.uid for page in PAGES}
    assert set(fake.rules) == {alert.uid for alert in ALERTS}
    assert {one["folderUid"] for one in fake.dashboards.values()} == set(fake.folders) == {"castline"}
    assert set(fake.datasources) == {"castline-prometheus"}
    assert fake.contacts["castline-contact"]["settings"]["url"] == WISHES.webhook


def test_the_second_push_changes_nothing(fake: FakeGrafana) -> None:
    push(fake)
    fake.writes.clear()
    assert push(fake) == []
    assert fake.writes == []


def test_what_a_person_changed_is_seen_and_put_right(fake: FakeGrafana) -> None:
    push(fake)
    before = kept(fake)
    fake.edit("castline-plant", title="Mine")
    fake.rules["castline-line-silent"]["for"] = "1h"
    grafana = Grafana(fake.url, ADMIN)
    changes = [change for change in plan(grafana, wanted(WISHES)) if change.action != "keep"]
    assert [(change.action, change.uid) for change in changes] == [("update", "castline-line-silent"), ("update", "castline-plant")]
    assert '- "for": "1h",' in changes[0].lines()
    assert '+ "title": "Castline: plant",' in changes[1].lines()
    assert push(fake) == ["updated alert rule castline-line-silent", "updated dashboard castline-plant"]
    assert kept(fake) == before


def test_a_dashboard_moved_to_another_folder_comes_back(fake: FakeGrafana) -> None:
    push(fake)
    fake.folders["other"] = {"uid": "other", "title": "Other", "version": 1, "id": 9}
    fake.dashboards["castline-line"]["folderUid"] = "other"
    assert push(fake) == ["updated dashboard castline-line"]
    assert fake.dashboards["castline-line"]["folderUid"] == "castline"


def test_only_what_is_castlines_is_removed(fake: FakeGrafana) -> None:
    push(fake)
    ours, theirs = (
        {"uid": "castline-old", "title": "Old", "tags": ["castline"]},
        {"uid": "shift-plan", "title": "Plan", "tags": ["castline"]},
    )
    for shown, folder in ((ours, "castline"), (theirs, "castline"), ({**ours, "uid": "castline-copy"}, "")):
        fake.dashboards[str(shown["uid"])] = {"dashboard": {**shown, "id": 5, "version": 1}, "folderUid": folder}
    fake.rules["castline-old-rule"] = {"uid": "castline-old-rule", "folderUID": "castline"}
    fake.rules["of-the-press"] = {"uid": "of-the-press", "folderUID": "press"}
    assert push(fake) == ["removed alert rule castline-old-rule", "removed dashboard castline-old"]
    assert {"shift-plan", "castline-copy"} <= set(fake.dashboards)
    assert "of-the-press" in fake.rules


def test_one_that_someone_saves_at_the_same_time_is_not_overwritten(fake: FakeGrafana) -> None:
    push(fake)
    fake.edit("castline-gates", title="Mine")
    fake.edit("castline-kafka", title="Mine as well")
    grafana = Grafana(fake.url, ADMIN)
    changes = plan(grafana, wanted(WISHES))
    fake.edit("castline-kafka", title="Saved meanwhile")
    with pytest.raises(GrafanaError, match=r"dashboard castline-kafka: .*someone did.*412.*nothing was changed") as refusal:
        apply(grafana, changes)
    assert refusal.value.status == 412
    assert fake.dashboards["castline-kafka"]["dashboard"]["title"] == "Saved meanwhile"
    assert fake.dashboards["castline-gates"]["dashboard"]["title"] == "Mine", "what was done before is undone"


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [
        ("token-of-nobody", 401, "Grafana does not know it"),
        (VIEWER, 403, "this one may not: give its service account the role Admin"),
        (EDITOR, 403, "this one may not: give its service account the role Admin"),
    ],
)
def test_a_token_that_may_not_changes_nothing(fake: FakeGrafana, token: str, status: int, words: str) -> None:
    with pytest.raises(GrafanaError, match=words) as refusal:
        push(fake, token)
    assert refusal.value.status == status
    assert fake.writes == []


@pytest.mark.parametrize("wishes", [WISHES, Wishes(datasource="grafanacloud-prom")], ids=["own", "of-the-stack"])
@pytest.mark.parametrize("at", ["/v1/provisioning/alert-rules", "/dashboards/db"])
def test_what_fails_in_the_middle_leaves_the_grafana_as_it_was(fake: FakeGrafana, at: str, wishes: Wishes) -> None:
    before, seen = kept(fake), []

    def fail_at_the_third(method: str, path: str) -> tuple[int, object] | None:
        if method == "POST" and path == at:
            seen.append(path)
        return (500, {"message": "database is locked"}) if len(seen) == 3 and method == "POST" else None

    fake.trouble = fail_at_the_third
    with pytest.raises(GrafanaError, match=r"database is locked.*nothing was changed"):
        push(fake, wishes=wishes)
    assert len(fake.writes) > 3
    assert kept(fake) == before


def test_what_cannot_be_undone_is_named(fake: FakeGrafana) -> None:
    def fail(method: str, path: str) -> tuple[int, object] | None:
        return (500, {"message": "disk full"}) if method == "DELETE" or path == "/dashboards/db" else None

    fake.trouble = fail
    with pytest.raises(GrafanaError, match=r"could not be undone: .*folder castline, data source castline-prometheus"):
        push(fake)


def test_another_thing_of_the_same_name_is_left_alone(fake: FakeGrafana) -> None:
    fake.datasources["mine"] = {"uid": "mine", "name": "Castline", "version": 1}
    with pytest.raises(GrafanaError, match="found one that Castline does not own"):
        push(fake)
    assert fake.writes == []


def test_a_hosted_stacks_own_data_source_is_used(fake: FakeGrafana) -> None:
    push(fake, wishes=Wishes(datasource="grafanacloud-prom"))
    assert fake.datasources == {}
    text = json.dumps([*fake.dashboards.values(), *fake.rules.values()])
    assert "castline-prometheus" not in text
    assert "grafanacloud-prom" in text


def test_alerts_can_be_left_to_the_alertmanager(fake: FakeGrafana) -> None:
    push(fake)
    done = push(fake, wishes=Wishes(webhook=WISHES.webhook, alerts=False))
    assert len(done) == len(ALERTS)
    assert fake.rules == {}


def test_a_server_that_cannot_list_rules_gets_them_all_the_same(fake: FakeGrafana) -> None:
    fake.lists_rules = False
    assert len(push(fake)) == EVERYTHING
    assert push(fake) == []


def test_an_old_grafana_is_refused(fake: FakeGrafana) -> None:
    fake.version = "9.2.20"
    with pytest.raises(GrafanaError, match=r"expected Grafana 9\.3 or later at .*, found 9\.2\.20"):
        push(fake)
    assert fake.writes == []


def test_no_grafana_at_the_address_is_said() -> None:
    with pytest.raises(GrafanaError, match="none answers"):
        plan(Grafana(f"http://localhost:{free_ports()}", ADMIN), [])


def test_behind_a_path_and_tls_as_a_hosted_stack_is(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    fake = FakeGrafana(prefix="/grafana", tls=context)
    try:
        grafana = Grafana(f"{fake.url}/", ADMIN, ca_file=str(trusted))
        apply(grafana, plan(grafana, wanted(WISHES)))
        assert len(fake.writes) == EVERYTHING
        with pytest.raises(GrafanaError, match=r"a certificate for .* that this machine trusts"):
            plan(Grafana(fake.url, ADMIN), [])
        with pytest.raises(GrafanaError, match="is a path missing"):
            plan(Grafana(fake.url.removesuffix("/grafana"), ADMIN, ca_file=str(trusted)), [])
    finally:
        fake.close()


@pytest.mark.parametrize("url", ["stack.grafana.net", "ftp://host", "https://", "https://me:pass@host", "https://host/?x=1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="--url: expected"):
        Grafana(url, ADMIN)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(SettingsError, match="GRAFANA_TOKEN"):
        Grafana("http://localhost", token)


Castline = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def castline(fake: FakeGrafana) -> Castline:
    def call(word: str, *arguments: str, token: str = ADMIN) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
        environment |= {"GRAFANA_TOKEN": token, "GRAFANA_ALERT_WEBHOOK": WISHES.webhook}
        command = [sys.executable, str(CASTLINE), "dashboards", word, "--url", fake.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)

    return call


def test_the_command_shows_pushes_checks_and_pulls(fake: FakeGrafana, tmp_path: Path) -> None:
    environment = {"GRAFANA_TOKEN": ADMIN, "GRAFANA_ALERT_WEBHOOK": WISHES.webhook}

    def castline(word: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return castline_here(environment, "dashboards", word, "--url", fake.url, *arguments)

    dry = castline("push", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert f"{EVERYTHING} to create" in dry.stdout
    assert fake.writes == []
    assert castline("check").returncode == 1
    pushed = castline("push")
    assert pushed.returncode == 0, pushed.stderr
    assert "created dashboard castline-plant" in pushed.stdout
    assert WISHES.webhook not in pushed.stdout
    checked = castline("check")
    assert (checked.returncode, checked.stdout) == (0, f"0 to create, 0 to update, 0 to remove, {EVERYTHING} to keep\n")
    fake.edit("castline-plant", title="Mine")
    assert castline("check").returncode == 1
    assert castline("pull", "--into", str(tmp_path)).returncode == 0
    assert json.loads((tmp_path / "dashboard/castline-plant.json").read_text())["title"] == "Mine"
    assert not (tmp_path / "contact-point").exists()


def test_the_command_says_in_a_sentence_what_is_wrong(castline: Castline) -> None:
    refused = castline("push", token="token-of-nobody")
    assert refused.returncode == 3
    assert refused.stderr.startswith("castline: ")
    assert "Traceback" not in refused.stderr
    assert "token-of-nobody" not in refused.stderr
