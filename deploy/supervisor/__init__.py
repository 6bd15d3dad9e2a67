"""Starts, watches, restarts and stops the processes of one machine. `castline up` and `castline demo` use this package."""

from deploy.supervisor.journal import Journal
from deploy.supervisor.log_file import LogFile
from deploy.supervisor.role import FileExists, LinePrinted, PageReady, ReadyCheck, RestartPolicy, Role, State, castline_command
from deploy.supervisor.supervisor import StopRequests, Supervisor

__all__ = [
    "FileExists",
    "Journal",
    "LinePrinted",
    "LogFile",
    "PageReady",
    "ReadyCheck",
    "RestartPolicy",
    "Role",
    "State",
    "StopRequests",
    "Supervisor",
    "castline_command",
]
