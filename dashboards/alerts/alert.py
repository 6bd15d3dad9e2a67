"""An alert and what a person does about it, in one place: a rule without its page of the runbook cannot be written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Recording:
    """A series that Prometheus computes and keeps."""

    name: str
    expression: str


@dataclass(frozen=True)
class Runbook:
    """What the person who is called needs, in this order."""

    meaning: str
    impact: str
    first_look: str
    fix: str


@dataclass(frozen=True)
class Alert:
    """A symptom. `critical` calls a person now, `warning` waits for the next shift's start.

    `lasting` is how long the expression must hold. `summary` is a template of Prometheus, which Grafana understands as well.
    `page` and `question` name the panel that shows it.
    """

    name: str
    expression: str
    lasting: str
    severity: Severity
    summary: str
    page: str
    question: str
    runbook: Runbook

    @property
    def uid(self) -> str:
        """Its fixed name in Grafana."""
        return f"castline-{self.slug}"[:40]

    @property
    def slug(self) -> str:
        """Its heading in the runbook."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.name).lower()
