"""The pages written from the code are as the code has it, and complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from prometheus_client import REGISTRY

from deploy.cli.main import COMMANDS, castline
from docs import generate
from docs.generator import channels, metrics
from docs.generator.commands import walk
from streams.identity import PartId, PictureIdentity, make_header_map, make_headers, read_identity
from streams.record_producer import ConsumedRecord, make_dead_letter, make_json_record
from streams.records import ModelChoice
from streams.settings import LineSettings, Settings
from streams.topics import TopicNames, declare_topics
from tests.docs.pages import DOCS, ROOT

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_every_page_is_fresh_whatever_the_order_of_sets(seed: str) -> None:
    command = [sys.executable, "-m", "docs.generate", "--check"]
    found = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False)
    assert found.stdout.splitlines() == []
    assert (found.returncode, found.stderr) == (0, "")


def test_a_stale_an_absent_and_a_left_over_page_are_named(tmp_path: Path) -> None:
    generate.write(tmp_path)
    assert generate.stale(tmp_path) == []
    (tmp_path / "topics.md").write_text("# Topics\n")
    (tmp_path / "metrics.md").unlink()
    (tmp_path / "schemas" / "castline.rumour.v1.schema.json").write_text("{}\n")
    assert generate.stale(tmp_path) == ["metrics.md", "schemas/castline.rumour.v1.schema.json", "topics.md"]


def test_every_topic_has_its_channel() -> None:
    settings = Settings(lines=(LineSettings(name="line-1"),))
    addresses = {channel.address for channel in channels.channels()}
    assert addresses == {spec.name.replace("line-1", "{line}") for spec in declare_topics(settings)}
    named = {name for name in vars(TopicNames) if not name.startswith("_") and name != "prefix"}
    assert len(channels.channels()) == len(named), "expected every topic to be declared"


def test_the_image_headers_are_those_that_are_written_and_read() -> None:
    part = PartId("line-1", 7, 1)
    whole = PictureIdentity(part, NOW, "image/jpeg", "0" * 64, "claim", "00-0-0-00")
    written = make_headers(whole, {"truth": "ok"})
    assert [name for name, _ in written] == list(channels.IMAGE_HEADERS)
    assert read_identity(part.key, make_header_map(written), "line-1") == whole


def test_the_headers_of_json_records_are_those_that_are_written() -> None:
    record = ModelChoice(line="*", version="v1", chosen_by="somebody", chosen_at=NOW)
    written = make_json_record("castings.models", b"*", record, "inspector").headers
    assert [name for name, _ in written] == list(channels.CLOUD_EVENT_HEADERS)


def test_the_headers_of_dead_letters_are_those_that_are_written() -> None:
    letter = make_dead_letter(
        "castings.dead-letters", ConsumedRecord("castings.images.line-1", 0, 1, b"key", b"", {}), "inspector", "identity", "no part"
    )
    assert [name for name, _ in letter.headers] == list(channels.DEAD_LETTER_HEADERS)


def test_every_metric_of_ours_that_prometheus_would_see_is_on_the_page() -> None:
    seen = {family.name for family in REGISTRY.collect() if family.name.startswith("castline_")}
    on_page = set(re.findall(r"^\| `(castline_\w+)` \|", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    assert {name.removesuffix("_total") for name in on_page} == seen
    assert all(one.section and one.meaning for one in metrics.declared())


def test_every_command_has_its_help_on_the_page() -> None:
    page = (DOCS / "commands.md").read_text()
    paths = [context.command_path for context in walk(castline, "castline")]
    assert [f"castline {name}" for name in COMMANDS] == [path for path in paths if path.count(" ") == 1]
    for path in paths:
        assert f"Usage: {path} " in page


def test_every_command_and_every_option_is_explained() -> None:
    unexplained = []
    for context in walk(castline, "castline"):
        if not context.command.help:
            unexplained.append(context.command_path)
        for parameter in context.command.params:
            if isinstance(parameter, click.Option) and not parameter.help:
                unexplained.append(f"{context.command_path} {parameter.opts[0]}")
    assert unexplained == []


def test_help_needs_no_tensorflow() -> None:
    code = (
        "import sys; from docs.generator import commands; commands.pages();"
        "sys.exit(', '.join(name for name in ('tensorflow', 'keras') if name in sys.modules) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"imported for a page of help: {found.stderr}"
