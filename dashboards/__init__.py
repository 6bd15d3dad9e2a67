"""Grafana dashboards, alerts, recording rules and the runbook, written as code."""
