"""Running processes refuse a model version that the administrator has not signed, where public keys are set."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka import KafkaProducer

from deploy.supervisor.ports import free_ports
from models.registry import MANIFEST_FILE, LocalRegistry
from streams.model_choices import ModelChoices, publish_model_choice
from streams.signatures import SIGNING_ROLES, create_keys, sign_manifest
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import make_jpeg, read_verdicts, wait_for
from tests.processes import CastlineProcess
from tests.station.browser.plant import HttpUser, create_account

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

LINE = "line-1"
REFUSAL = "must be signed by the role administrator, because signing.public_keys is set, but it has no signature"


def test_running_processes_refuse_an_unsigned_version_and_none_starts_with_it(
    make_settings: MakeSettings, models_root: Path, tmp_path: Path
) -> None:
    root, keys = tmp_path / "versions", tmp_path / "keys"
    for role in SIGNING_ROLES:
        create_keys(keys, keys / "public", role)
    for name in ("tiny", "forged"):
        shutil.copytree(models_root / "tiny", root / name)
        manifest = root / name / MANIFEST_FILE
        manifest.write_text(manifest.read_text().replace('"version": "tiny"', f'"version": "{name}"'))
    LocalRegistry(root).write_signature("tiny", sign_manifest(keys, "tiny", (root / "tiny" / MANIFEST_FILE).read_bytes()))
    settings = make_settings(
        lines=(LINE, "uploads"),
        model={"root": root, "version": "tiny", "runtime": "litert"},
        batch={"size": 4, "shapes": (1, 4)},
        signing={"private_keys": keys, "public_keys": keys / "public"},
        station={"port": free_ports(), "database": str(tmp_path / "station.sqlite3"), "secret_key_file": tmp_path / "station.key"},
    )
    with ExitStack() as stack:
        inspector, localiser, station = (
            stack.enter_context(CastlineProcess(settings, tmp_path / f"{role}.log", role)) for role in ("inspector", "localiser", "station")
        )
        for process in (inspector, localiser, station):
            process.wait_ready(180)
        choice = ModelChoices("tiny").make_choice(LINE, "forged", "the test", datetime.now(UTC))
        publish_model_choice(settings.for_role("administrator"), choice, "models")
        wait_for(lambda: inspector.metric("castline_model_refused_total", line=LINE, reason="files") > 0, 60, "expected a refusal")
        wait_for(lambda: "Version forged makes no heat maps" in localiser.log(), 60, "expected a refusal by the localiser")
        assert REFUSAL in inspector.log()
        assert REFUSAL in localiser.log()
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
        producer.send(TopicNames(settings.topics.prefix).images(LINE), key=f"{LINE}:1:1".encode(), value=make_jpeg(1)).get(10)
        producer.close()
        wait_for(lambda: bool(read_verdicts(settings)), 60, "expected a verdict")
        assert [verdict.model for verdict in read_verdicts(settings)] == ["tiny"], "the signed version goes on judging"
        create_account(settings, "erna", "engineer")
        erna = HttpUser(f"http://127.0.0.1:{settings.station.port}", "erna")
        page = erna.get("/models/").text
        assert '<option value="forged" disabled>' in page
        assert '<option value="tiny" disabled>' not in page
        assert "castline models sign forged" in erna.get("/models/version/forged/").text
        answer = erna.post("/models/change", "/models/", data={"action": "choose", "version": "forged", "line": LINE})
        assert "castline models sign forged" in answer.text
    unsigned = settings.model_copy(update={"model": settings.model.model_copy(update={"version": "forged"})})
    with CastlineProcess(unsigned, tmp_path / "second.log", "inspector") as second:
        assert second.process.wait(120) == 3
        assert REFUSAL in second.log()
