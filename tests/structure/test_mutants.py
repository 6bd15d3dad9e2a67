"""Each mutant of `make campaign-mutants` still fits the source code, and its tests exist."""

from __future__ import annotations

import shlex

import pytest

from tests.mutants.campaign import MUTANTS_BY_GROUP
from tests.mutants.mutant import Mutant
from tests.structure.tree import ROOT

MUTANTS = [mutant for mutants in MUTANTS_BY_GROUP.values() for mutant in mutants]


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_changes_one_place_of_the_source_code(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    changed = mutant.change(source)
    assert changed != source
    if mutant.file.endswith(".py"):
        compile(changed, mutant.file, "exec")
    paths = [word for word in shlex.split(mutant.tests) if word.startswith("tests/")]
    assert paths, "the mutant names no test"
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_no_two_mutants_have_the_same_name() -> None:
    assert sorted({mutant.name for mutant in MUTANTS}) == sorted(mutant.name for mutant in MUTANTS)
