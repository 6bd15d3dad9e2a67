"""The model registry: folders of model versions on this machine or on S3, each with a manifest and checksums.

The registry does not import TensorFlow. So the station and the command line can use it, not only the inspectors:

    registry = open_registry("s3://plant/versions")     # or the path of a folder on this machine
    registry.list_names()                               # names of all versions
    registry.read_manifest("demo")                      # one version's classes, threshold, figures and files; not verified
    registry.open_version("demo")                       # the folder with the version's files, after their checksums were verified
"""

from models.registry.local_registry import MANIFEST_FILE, LocalRegistry, Version, add_drift_reference, write_manifest
from models.registry.manifest import Manifest
from models.registry.registry import BUNDLED_VERSIONS, Registry, locate_version, open_registry
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
    "open_registry",
    "parse_remote_url",
    "write_manifest",
]
