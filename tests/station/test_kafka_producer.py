"""The producer that all threads of the station share."""

from __future__ import annotations

from django.test.utils import override_settings

from station.kafka_producer import get_producer
from tests.conftest import MakeSettings


def test_the_shared_producer_follows_the_settings(make_settings: MakeSettings) -> None:
    for settings in (make_settings(), make_settings()):
        with override_settings(CASTLINE=settings):
            assert get_producer().settings is settings
            assert get_producer() is get_producer()
