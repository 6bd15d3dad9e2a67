"""The table of error codes: every code has its own number, its own name, and all columns."""

from __future__ import annotations

from dataclasses import astuple
from importlib.resources import files

import pytest

from firmware.fault_table import code_of, describe_fault, error_codes


def test_numbers_and_names_are_unique() -> None:
    lines = (files("firmware") / "error_codes.csv").read_text(encoding="utf-8").splitlines()
    assert len(error_codes()) == len({row.name for row in error_codes().values()}) == len(lines) - 1


def test_every_column_of_every_row_is_filled() -> None:
    assert all(column != "" for row in error_codes().values() for column in astuple(row))


def test_a_code_is_found_by_its_name() -> None:
    assert code_of("late") == 20
    with pytest.raises(KeyError):
        code_of("punctual")


def test_a_fault_is_described_in_words() -> None:
    assert describe_fault(41) == "fault 41: photo-eye 1 is blocked too long or never"
    assert describe_fault(7777) == "fault 7777"
