"""Settings of every process: `castline.toml` plus `CASTLINE_*` environment variables; frozen, bounded, described."""

from streams.settings.gate import GateSettings
from streams.settings.kafka import BrokerSettings, KafkaSettings, TopicSettings
from streams.settings.lines import CameraSettings, LineSettings
from streams.settings.load import Settings, load_settings
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

__all__ = [
    "BatchSettings",
    "BrokerSettings",
    "CameraSettings",
    "GateSettings",
    "GatewaySettings",
    "InspectorSettings",
    "KafkaSettings",
    "LineSettings",
    "ModelSettings",
    "PictureSettings",
    "ServiceSettings",
    "Settings",
    "SorterSettings",
    "StoreSettings",
    "TopicSettings",
    "load_settings",
]
