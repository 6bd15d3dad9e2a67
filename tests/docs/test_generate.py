"""Tests that the generated documents agree with the code, and that outdated documents are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from docs import generate
from tests.docs.pages import ROOT


@pytest.mark.parametrize("seed", ["1", "2"])
def test_every_document_agrees_with_the_code_for_any_hash_seed(seed: str) -> None:
    command = [sys.executable, "-m", "docs.generate", "--check"]
    found = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False)
    assert found.stdout.splitlines() == []
    assert (found.returncode, found.stderr) == (0, "")


def test_outdated_missing_and_left_over_documents_are_found(tmp_path: Path) -> None:
    generate.write_documents(tmp_path)
    assert generate.find_outdated(tmp_path) == []
    (tmp_path / "topics.md").write_text("# Topics\n")
    (tmp_path / "metrics.md").unlink()
    (tmp_path / "schemas" / "castline.rumour.v1.schema.json").write_text("{}\n")
    assert generate.find_outdated(tmp_path) == ["metrics.md", "schemas/castline.rumour.v1.schema.json", "topics.md"]
