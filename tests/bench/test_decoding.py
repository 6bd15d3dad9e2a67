"""The bench of the decoder measures every form of every picture, in a thread and in a process."""

from __future__ import annotations

import pytest

from bench.decoding import measure_decoding

pytestmark = pytest.mark.real


def test_each_form_is_measured_in_a_thread_and_in_a_process() -> None:
    results = measure_decoding(None, 3)
    assert [(result.form, result.pictures) for result in results] == [("as stored", 3), ("as PNG", 3)]
    assert all(result.thread_us > 0 and result.process_us > 0 and result.mean_bytes > 1000 for result in results)
