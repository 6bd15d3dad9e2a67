"""Commands and answers while the key that signs them is changed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from streams.commands import decode_command, make_command_record
from streams.errors import RecordError
from streams.identity import make_header_map
from streams.records import make_command
from streams.settings import Settings

OLD, NEW = "short", "n" * 32
# The settings of a machine in the steps of docs/security.md. The first machines are one step ahead of the last ones.
STEPS = [
    {"command_key": OLD, "second_command_key": NEW},
    {"command_key": NEW, "second_command_key": OLD},
    {"command_key": NEW},
]


def accepts(reader: dict[str, str], writer: dict[str, str]) -> bool:
    record = make_command_record(Settings.model_validate({"sorter": writer}), make_command("line-1", "acknowledge", "anna", 10), "station")
    try:
        decode_command(Settings.model_validate({"sorter": reader}), record.key, record.value, make_header_map(record.headers))
    except RecordError:
        return False
    return True


@pytest.mark.parametrize(("before", "after"), [(STEPS[0], STEPS[0]), *pairwise(STEPS)])
def test_machines_in_neighbouring_steps_of_a_change_of_the_key_accept_each_other(before: dict[str, str], after: dict[str, str]) -> None:
    assert accepts(before, after)
    assert accepts(after, before)


def test_after_the_change_the_old_key_is_refused() -> None:
    assert not accepts(STEPS[2], STEPS[0])
    assert not accepts(STEPS[2], {"command_key": "o" * 32})
    assert not accepts(STEPS[1], {})
