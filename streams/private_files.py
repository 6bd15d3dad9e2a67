"""Protects the files of the plant from other users of this machine: makes new files private, and checks existing files.

A file counts as exposed only if other users also have access to each folder above it.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from streams.errors import SettingsError
from streams.kafka_users import ROLES
from streams.secrets import reveal
from streams.settings import Settings

PRIVATE_UMASK = 0o077
_OTHERS = 0o007
_GROUP_AND_OTHERS = 0o077
_PASSING = 0o011


def make_new_files_private() -> None:
    """Makes the files that this process and its children create readable for their owner only."""
    os.umask(PRIVATE_UMASK)


def list_private_paths(settings: Settings) -> Iterator[Path]:
    """Yields the folders and files of the settings that no other user of this machine may read. Some of them may not exist yet.

    The content of a private folder is private, too.
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
    """Returns the paths of `list_private_paths` that other users of this machine can reach and read or write."""
    return [path for path in list_private_paths(settings) if is_exposed(path)]


def is_exposed(path: Path) -> bool:
    """Returns whether other users of this machine can reach `path` and have rights to it. A path that does not exist is not exposed.

    If this user owns the file, the group of the file must have no rights. If another user owns the file, its group may have rights. For
    example, root owns a password file, and the group of a service may read it.
    """
    resolved = path.resolve()
    try:
        status = resolved.stat()
        refused = _GROUP_AND_OTHERS if status.st_uid == os.geteuid() else _OTHERS
        return bool(stat.S_IMODE(status.st_mode) & refused) and all(folder.stat().st_mode & _PASSING for folder in resolved.parents)
    except OSError:
        return False


def format_closing_command(path: Path) -> str:
    """Returns a shell command that takes the rights to `path` and its content from other users. This user keeps the rights.

    If another user owns `path`, for example root, the owner must call the command. The command then gives `path` to the group of this user.
    """
    quoted = shlex.quote(str(path))
    if path.stat().st_uid == os.geteuid():
        return f"chmod -R go-rwx {quoted}"
    return f"chgrp -R {os.getegid()} {quoted} && chmod -R o-rwx {quoted}"


def refuse_exposed_files(settings: Settings) -> None:
    """Raises SettingsError if other users can read or write files of the plant. The message contains the command to correct this."""
    exposed = find_exposed_paths(settings)
    if exposed:
        named = ", ".join(f"{path} (mode {stat.S_IMODE(path.stat().st_mode):04o})" for path in exposed)
        commands = " && ".join(map(format_closing_command, exposed))
        raise SettingsError(f"Other users of this machine can read or write {named}. Correct this with: {commands}")
