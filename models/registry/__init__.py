"""The model registry: folders of model versions, on this machine or on S3.

The registry needs no TensorFlow and no Kafka library:

    registry = open_registry("s3://plant/versions")     # or a folder
    registry.list_names()                               # names of all versions
    registry.read_manifest("demo")                      # one manifest; its files are not verified
    registry.open_version("demo")                       # the folder of a version; verified
"""

from models.registry.local_registry import (
    MANIFEST_FILE,
    LocalRegistry,
    Version,
    add_drift_reference,
    read_verified_manifest,
    write_manifest,
)
from models.registry.manifest import Manifest
from models.registry.registry import BUNDLED_VERSIONS, Registry, locate_version, open_plant_registry, open_registry
from models.registry.remote_registry import RemoteRegistry, parse_remote_url

__all__ = [
    "BUNDLED_VERSIONS",
    "MANIFEST_FILE",
    "LocalRegistry",
    "Manifest",
    "Registry",
    "RemoteRegistry",
    "Version",
    "add_drift_reference",
    "locate_version",
    "open_plant_registry",
    "open_registry",
    "parse_remote_url",
    "read_verified_manifest",
    "write_manifest",
]
