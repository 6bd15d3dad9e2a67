"""The settings of every process, read from `castline.toml` and from the environment variables `CASTLINE_*`."""

from streams.settings.lines import CameraSettings, GateSettings, GradeSettings, LineSettings
from streams.settings.load import DEFAULT_FILE, FILE_VARIABLE, VARIABLE_PREFIX, Settings, find_settings_file, load_settings
from streams.settings.sections import (
    ArchivistSettings,
    BatchSettings,
    BrokerSettings,
    GatewaySettings,
    InspectorSettings,
    KafkaSettings,
    ModelSettings,
    PictureSettings,
    PlantStateSettings,
    ReviewSettings,
    ServiceSettings,
    SorterSettings,
    StationSettings,
    StoreSettings,
    TopicSettings,
)

__all__ = [
    "DEFAULT_FILE",
    "FILE_VARIABLE",
    "VARIABLE_PREFIX",
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
    "PlantStateSettings",
    "ReviewSettings",
    "ServiceSettings",
    "Settings",
    "SorterSettings",
    "StationSettings",
    "StoreSettings",
    "TopicSettings",
    "find_settings_file",
    "load_settings",
]
