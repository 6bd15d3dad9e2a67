"""What Prometheus and Alertmanager are told: where the processes are found, which rules hold, who is called, what goes to a hosted stack.

Pure: makes the text of their configuration files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from dashboards.alerts.catalogue import INHIBITIONS

JOB = "castline"


@dataclass(frozen=True)
class Remote:
    """A hosted stack that takes samples by remote write. The token stands in a file, which only Prometheus' user may read."""

    url: str
    token_file: str
    username: str = ""  # hosted stacks that want a number and the token as password


@dataclass(frozen=True)
class Scraping:
    """`targets` are the files that the processes write: `<service.run_dir>/targets/*.json`, of all machines of the plant."""

    plant: str
    targets: tuple[str, ...]
    rules: str = ""  # empty in agent mode, which evaluates none
    alertmanager: str = ""
    remote: Remote | None = None
    every_s: int = 10


def prometheus_config(scraping: Scraping) -> str:
    """The text of prometheus.yml."""
    scrape: dict[str, Any] = {
        "job_name": JOB,
        "file_sd_configs": [{"files": list(scraping.targets), "refresh_interval": "30s"}],
        "relabel_configs": [
            # A label of the target, not an external one: queries of this same Prometheus must see it.
            {"target_label": "plant", "replacement": scraping.plant},
            # Every restart has another pid: as a label it would begin all series anew.
            {"action": "labeldrop", "regex": "pid"},
        ],
    }
    found: dict[str, Any] = {
        "global": {"scrape_interval": f"{scraping.every_s}s", "evaluation_interval": f"{scraping.every_s}s"},
        "scrape_configs": [scrape],
    }
    if scraping.rules:
        found["rule_files"] = [scraping.rules]
    if scraping.alertmanager:
        found["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [scraping.alertmanager]}]}]}
    if scraping.remote:
        found["remote_write"] = [_remote_write(scraping.remote)]
    return _text(found)


def _remote_write(remote: Remote) -> dict[str, Any]:
    login: dict[str, Any] = (
        {"basic_auth": {"username": remote.username, "password_file": remote.token_file}}
        if remote.username
        else {"authorization": {"credentials_file": remote.token_file}}
    )
    return {
        "url": remote.url,
        "name": "hosted",
        **login,
        "remote_timeout": "30s",
        # What cannot be sent waits in the write-ahead log on disk, which the retention bounds; here the copies in memory are.
        "queue_config": {
            "capacity": 5000,
            "max_shards": 4,
            "max_samples_per_send": 2000,
            "batch_send_deadline": "5s",
            "min_backoff": "1s",
            "max_backoff": "1m",
            "retry_on_http_429": True,
        },
        # Only ours and the processes' own figures: hosted stacks are paid by the series.
        "write_relabel_configs": [
            {
                "source_labels": ["__name__"],
                "regex": "castline_.*|line:castline_.*|up|process_.*|ALERTS|scrape_duration_seconds",
                "action": "keep",
            }
        ],
    }


def alertmanager_config(webhook_url: str = "http://127.0.0.1:9095/castline") -> str:
    """The text of alertmanager.yml: one call for each line and plant, what is a consequence of another calls nobody."""
    found: dict[str, Any] = {
        "route": {
            "receiver": "shift",
            "group_by": ["plant", "line"],
            "group_wait": "15s",
            "group_interval": "2m",
            "repeat_interval": "4h",
            "routes": [
                {"receiver": "on-call", "matchers": ['severity="critical"'], "repeat_interval": "30m"},
                {"receiver": "shift", "matchers": ['severity="warning"']},
            ],
        },
        "receivers": [
            {"name": "on-call", "webhook_configs": [{"url": f"{webhook_url}/on-call", "send_resolved": True}]},
            {"name": "shift", "webhook_configs": [{"url": f"{webhook_url}/shift", "send_resolved": True}]},
        ],
        "inhibit_rules": [
            {
                "source_matchers": [f'alertname="{one.source}"'],
                "target_matchers": [f'alertname=~"{"|".join(one.targets)}"'],
                "equal": list(one.equal),
            }
            for one in INHIBITIONS
        ],
    }
    return _text(found)


def _text(found: dict[str, Any]) -> str:
    head = "# Written by Castline (dashboards/scraping.py).\n"
    return head + yaml.safe_dump(found, sort_keys=False, width=150)
