"""Finds out which user's program listens at a port of this machine.

While a program of Castline is not running, any user of this machine can start another program at its port. Clients then reach this other
program instead of Castline.
"""

from __future__ import annotations

import pwd
from pathlib import Path

_LISTENING = "0A"  # the state TCP_LISTEN in Linux's include/net/tcp_states.h


def describe_holder(port: int) -> str:
    """Returns who listens at `port`, such as "a program of the user anna". Returns "another program" if no user is found."""
    users = {find_user_name(user_id) for user_id in _list_listening_users(port)}
    return f"a program of the user {' and of the user '.join(sorted(users))}" if users else "another program"


def _list_listening_users(port: int) -> set[int]:
    """Returns the ids of the users whose programs listen at `port`. Source: proc(5), `/proc/net/tcp`."""
    users = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                users.add(int(fields[7]))
    return users


def find_user_name(user_id: int) -> str:
    """Returns the name of the user with `user_id`, or the id if the user has no name on this machine."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
