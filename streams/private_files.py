"""Protects the files of the plant from other users of this machine: makes new files private, and checks existing files.

A private file is called exposed if other users have some permission for the file, and can reach it through the folders above it. A file
that the plant trusts, such as its settings, is called replaceable if other users can write to the file or to a folder above it.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from streams.errors import SettingsError
from streams.gateway_token import gateway_token_file
from streams.kafka_users import ROLES
from streams.secrets import reveal
from streams.settings import Settings

PRIVATE_UMASK = 0o077
_OTHERS = 0o007
_GROUP_AND_OTHERS = 0o077
_PASSING = 0o011
_OTHERS_WRITE = 0o002
_OTHERS_PASS = 0o001


def make_new_files_private() -> None:
    """Makes the files that this process and its children create readable for their owner only."""
    os.umask(PRIVATE_UMASK)


def list_private_paths(settings: Settings) -> Iterator[Path]:
    """Yields the private files and folders that the settings name. Some of them may not exist yet.

    No other user of this machine may read a private file, or any file in a private folder.
    """
    yield settings.broker.data_dir
    yield settings.gateway.spool_dir
    yield settings.sorter.journal_dir
    yield settings.review.data_sets
    store = reveal(settings.store.url)
    yield from (Path(store),) if "://" not in store else ()
    yield from _list_secret_files(settings)
    if "://" not in settings.station.database:
        yield from (Path(f"{settings.station.database}{suffix}") for suffix in ("", "-wal", "-shm", "-journal"))


def _list_secret_files(settings: Settings) -> Iterator[Path]:
    station, kafka = settings.station, settings.kafka
    yield gateway_token_file(settings)
    files = (
        station.secret_key_file,
        station.database_password_file,
        station.oidc.client_secret_file,
        kafka.password_file,
        kafka.key_file,
    )
    yield from (file for file in files if file is not None)
    if settings.signing.private_keys is not None:
        yield from (settings.signing.private_keys / f"{role}.key" for role in ROLES)
    if kafka.password_dir is not None:
        yield from (kafka.password_dir / role for role in ROLES)


def find_exposed_paths(settings: Settings) -> list[Path]:
    """Returns the private files and folders for which other users of this machine have some permission."""
    return [path for path in list_private_paths(settings) if is_exposed(path)]


def is_exposed(path: Path) -> bool:
    """Returns whether other users of this machine can reach `path` and have some permission for it. A missing file is not exposed.

    If the user of this process owns the file, the group of the file must have no permissions. If another user owns the file, the group may
    have permissions: for example, root can own a password file that the group of a service may read.
    """
    resolved = path.resolve()
    try:
        status = resolved.stat()
        refused = _GROUP_AND_OTHERS if status.st_uid == os.geteuid() else _OTHERS
        return bool(stat.S_IMODE(status.st_mode) & refused) and all(folder.stat().st_mode & _PASSING for folder in resolved.parents)
    except OSError:
        return False


def list_trusted_paths(settings: Settings, settings_file: Path | None) -> Iterator[Path]:
    """Yields the files and folders that the plant trusts: the settings, the public keys and the model versions."""
    if settings_file is not None:
        yield settings_file
    if (keys := settings.signing.public_keys) is not None:
        yield from (keys, *_list_entries(keys))
    if "://" not in str(settings.model.root):
        yield (root := Path(settings.model.root))
        for version in _list_entries(root):
            yield from (version, *_list_entries(version))


def _list_entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def find_replaceable_paths(settings: Settings, settings_file: Path | None) -> list[Path]:
    """Returns the files and folders through which other users of this machine can replace a file that the plant trusts.

    Users can replace a file if they can write to the file, or if they can rename entries of a folder above it. In a folder with the sticky
    bit, such as /tmp, users can rename only their own entries.
    """
    found: dict[Path, None] = {}
    for trusted in list_trusted_paths(settings, settings_file):
        # If the path is a symbolic link, check the folders of the link and the folders of its target.
        for path in (trusted.absolute(), trusted.resolve()):
            found |= dict.fromkeys(folder for folder in (path, *path.parents) if _is_writable(folder, may_be_sticky=folder != path))
    return list(found)


def _is_writable(path: Path, may_be_sticky: bool) -> bool:
    """Returns whether other users can write to `path`. If `may_be_sticky` is True, returns False for a folder with the sticky bit."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) or not mode & _OTHERS_WRITE or (may_be_sticky and mode & stat.S_ISVTX):
            return False
        # Nobody can write to a read-only file system, whatever the mode says. Kubernetes mounts the folders of a ConfigMap in this way.
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return False
        return all(folder.stat().st_mode & _OTHERS_PASS for folder in path.parents)
    except OSError:
        return False


def format_protecting_command(path: Path) -> str:
    """Returns a shell command after which other users cannot write to `path`."""
    return f"chmod o-w {shlex.quote(str(path))}"


def format_closing_command(path: Path) -> str:
    """Returns a shell command after which other users have no permissions for `path` and its content.

    The user of this process keeps the permissions. If another user owns `path`, for example root, this owner must run the command. The
    command then gives `path` to the group of this process.
    """
    quoted = shlex.quote(str(path))
    if path.stat().st_uid == os.geteuid():
        return f"chmod -R go-rwx {quoted}"
    return f"chgrp -R {os.getegid()} {quoted} && chmod -R o-rwx {quoted}"


def refuse_exposed_files(settings: Settings, settings_file: Path | None = None) -> None:
    """Raises SettingsError if other users can read or write files of the plant, or replace files that the plant trusts.

    `settings_file` is the file of the settings. The error message contains the command that corrects the permissions.
    """
    exposed = find_exposed_paths(settings)
    if exposed:
        named = ", ".join(f"{path} (mode {stat.S_IMODE(path.stat().st_mode):04o})" for path in exposed)
        commands = " && ".join(map(format_closing_command, exposed))
        raise SettingsError(f"Other users of this machine can read or write {named}. Correct this with: {commands}")
    replaceable = find_replaceable_paths(settings, settings_file)
    if replaceable:
        named = ", ".join(f"{path} (mode {stat.S_IMODE(path.stat().st_mode):04o})" for path in replaceable)
        commands = " && ".join(map(format_protecting_command, replaceable))
        raise SettingsError(
            f"Other users of this machine can replace the settings, the public keys or the model versions through {named}. Correct this "
            f"with: {commands}"
        )
