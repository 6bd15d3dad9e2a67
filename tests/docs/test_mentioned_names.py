"""Tests that everything that the pages mention exists: commands, options, make targets, settings, metrics and files."""

from __future__ import annotations

import re

import pytest

from deploy.cli.settings import describe_settings
from docs.generator.reference import list_metrics
from streams.settings import FILE_VARIABLE, VARIABLE_PREFIX, Settings
from tests.docs.castline_commands import find_problem, find_shown_commands
from tests.docs.pages import ROOT, list_pages, read_inline_code

PAGES = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in list_pages()}
SETTINGS = {name.replace("[]", "") for name, *_ in describe_settings()}


def variables() -> set[str]:
    """Returns every environment variable that a setting is read from."""
    sections = {f"{VARIABLE_PREFIX}{name.upper()}" for name in Settings.model_fields}
    single = {VARIABLE_PREFIX + name.upper().replace(".", "__") for name in SETTINGS if not name.startswith("lines.")}
    return sections | single | {FILE_VARIABLE}


def mentioned_variables(text: str) -> set[str]:
    return set(re.findall(rf"\b{VARIABLE_PREFIX}[A-Z][A-Z0-9_]*[A-Z0-9]", text))


def mentioned_metrics(text: str) -> set[str]:
    return set(re.findall(r"\bcastline_[a-z0-9_]*[a-z0-9]\b", text))


def test_every_command_that_a_page_shows_exists_with_its_options() -> None:
    found = list(find_shown_commands())
    assert len(found) > 3
    assert [f"{page}: {' '.join(words)}: {problem}" for page, words in found if (problem := find_problem(words))] == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("castline demo --seconds 60", ""),
        ("castline --settings plant.toml settings check", ""),
        ("make test ARGS=tests/agents/gate", ""),
        ("castline dance", "castline has no command dance"),
        ("castline topics delete", "castline topics has no command delete"),
        ("castline demo --second 60", "castline demo has no option --second"),
        ("make test ARGS=tests/gait", "there is no tests/gait"),
        ("make party", "the Makefile has no target party"),
        ("make demo ARGS=--second", "castline demo has no option --second"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, expected: str) -> None:
    assert find_problem(line.split()) == expected


def test_every_variable_that_a_page_mentions_is_read() -> None:
    assert mentioned_variables(PAGES["docs/settings.md"]) > {"CASTLINE_BATCH__SIZE", FILE_VARIABLE}
    assert {name: unknown for name, text in PAGES.items() if (unknown := mentioned_variables(text) - variables())} == {}


def test_every_setting_has_its_variable_on_the_page() -> None:
    assert variables() - {f"{VARIABLE_PREFIX}{name.upper()}" for name in Settings.model_fields} <= mentioned_variables(
        PAGES["docs/settings.md"]
    )
    assert "CASTLINE_BATCH__SISE" not in variables()


def test_every_setting_that_a_page_names_with_its_section_exists() -> None:
    unknown = []
    for page in list_pages():
        for word in read_inline_code(page):
            name = re.fullmatch(r"([a-z]+)\.[a-z_.]+", word)
            if name and name[1] in Settings.model_fields and not re.search(r"\.(py|json|md|toml|h5)$", word) and word not in SETTINGS:
                unknown.append(f"{page.relative_to(ROOT)}: {word}")
    assert unknown == []


def test_every_metric_that_a_page_mentions_is_declared() -> None:
    series = {name for one in list_metrics() for name in one.series}
    assert mentioned_metrics(PAGES["docs/metrics.md"]) <= series
    assert {name: unknown for name, text in PAGES.items() if (unknown := mentioned_metrics(text) - series)} == {}
    assert "castline_verdict_total" not in series


def test_every_link_between_pages_leads_to_a_file() -> None:
    broken, found = [], 0
    for page in list_pages():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                found += 1
                if not (page.parent / target).exists():
                    broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert found > 3
    assert broken == []
