"""Makes the texts of the configuration files of Prometheus and Alertmanager, and of the rules file.

No function of this module writes a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from dashboards.catalogue import ALERT_GROUPS, INHIBITIONS, make_annotations
from dashboards.rules import RECORDING_RULES, Alert

JOB = "castline"


@dataclass(frozen=True)
class RemoteWrite:
    """A hosted Prometheus to which the local Prometheus sends its samples (remote write).

    `token_file` is the path of the file with the token. Some servers take the token as a password, and then `username` is needed.
    """

    url: str
    token_file: str
    username: str = ""


@dataclass(frozen=True)
class ScrapeConfig:
    """Says which processes a Prometheus scrapes, and where it sends alerts and samples.

    - `targets`: path patterns of the files `<service.run_dir>/targets/*.json`.
    - `rules`: path of the rules file. Empty in agent mode, which evaluates no rules.
    - `alertmanager`: host:port, or empty.
    """

    plant: str
    targets: tuple[str, ...]
    rules: str = ""
    alertmanager: str = ""
    remote_write: RemoteWrite | None = None
    interval_s: int = 10


def make_prometheus_config(config: ScrapeConfig) -> str:
    """Returns the text of prometheus.yml."""
    scrape: dict[str, Any] = {
        "job_name": JOB,
        "file_sd_configs": [{"files": list(config.targets), "refresh_interval": "30s"}],
        "relabel_configs": [
            # Queries select series by the label `plant`, so each target gets this label. An external label would not be enough, because
            # Prometheus adds external labels only to what it sends to other systems.
            {"target_label": "plant", "replacement": config.plant},
            # The label `pid` is removed, because it changes at every restart of a process, and each restart would begin new series.
            {"action": "labeldrop", "regex": "pid"},
        ],
    }
    document: dict[str, Any] = {
        "global": {"scrape_interval": f"{config.interval_s}s", "evaluation_interval": f"{config.interval_s}s"},
        "scrape_configs": [scrape],
    }
    if config.rules:
        document["rule_files"] = [config.rules]
    if config.alertmanager:
        document["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [config.alertmanager]}]}]}
    if config.remote_write:
        document["remote_write"] = [_remote_write(config.remote_write)]
    return _to_yaml(document)


def make_alertmanager_config(webhook_url: str = "http://127.0.0.1:9095/castline") -> str:
    """Returns the text of alertmanager.yml. Alerts of the same plant and line are sent as one message. Inhibited alerts are not sent."""
    document: dict[str, Any] = {
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
                "source_matchers": [f'alertname="{inhibition.source}"'],
                "target_matchers": [f'alertname=~"{"|".join(inhibition.targets)}"'],
                "equal": list(inhibition.equal),
            }
            for inhibition in INHIBITIONS
        ],
    }
    return _to_yaml(document)


def make_rules() -> str:
    """Returns the text of rules.yml: all recording rules and all alerts."""
    recordings = [{"record": rule.name, "expr": rule.expression} for rule in RECORDING_RULES]
    groups: list[dict[str, Any]] = [{"name": "castline-recorded", "rules": recordings}]
    for name, alerts in ALERT_GROUPS.items():
        groups.append({"name": name, "rules": [_alerting_rule(alert) for alert in alerts]})
    head = "# Written by `python -m dashboards.generate` from dashboards/pages; changes made here are lost.\n"
    return head + yaml.safe_dump({"groups": groups}, sort_keys=False, width=150, allow_unicode=True)


def _alerting_rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.for_duration,
        "labels": alert.labels,
        "annotations": make_annotations(alert),
    }


def _remote_write(remote: RemoteWrite) -> dict[str, Any]:
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
        # Prometheus sends its samples from a queue in memory. The queue can stay small, because samples that cannot be sent wait on disk,
        # in the write-ahead log of the local Prometheus.
        "queue_config": {
            "capacity": 5000,
            "max_shards": 4,
            "max_samples_per_send": 2000,
            "batch_send_deadline": "5s",
            "min_backoff": "1s",
            "max_backoff": "1m",
            "retry_on_http_429": True,
        },
        # Only Castline's metrics and metrics about its processes are sent, because a hosted Prometheus costs money for each series.
        "write_relabel_configs": [
            {
                "source_labels": ["__name__"],
                "regex": "castline_.*|line:castline_.*|up|process_.*|ALERTS|scrape_duration_seconds",
                "action": "keep",
            }
        ],
    }


def _to_yaml(document: dict[str, Any]) -> str:
    return "# Written by Castline (dashboards/prometheus.py).\n" + yaml.safe_dump(document, sort_keys=False, width=150)
