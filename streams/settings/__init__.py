"""Settings of every process: `castline.toml` plus `CASTLINE_*` environment variables; frozen, bounded, described."""

from streams.settings.gate import GateSettings, GradeSettings
from streams.settings.kafka import BrokerSettings, KafkaSettings, TopicSettings
from streams.settings.lines import CameraSettings, LineSettings
from streams.settings.load import Settings, load_settings
from streams.settings.review import ReviewSettings
from streams.settings.roles import (
    BatchSettings,
    GatewaySettings,
    InspectorSettings,
    ModelSettings,
    PictureSettings,
    ServiceSettings,
    SorterSettings,
    StoreSettings,
)
from streams.settings.station import ArchivistSettings, StationSettings

__all__ = [
    "ArchivistSettings",
    "BatchSettings",
    "BrokerSettings",
    "CameraSettings",
    "GateSettings",
    "GatewaySettings",
    "GradeSettings",
    "InspectorSettings",
    "KafkaSettings",
    "LineSettings",
    "ModelSettings",
    "PictureSettings",
    "ReviewSettings",
    "ServiceSettings",
    "Settings",
    "SorterSettings",
    "StationSettings",
    "StoreSettings",
    "TopicSettings",
    "load_settings",
]
