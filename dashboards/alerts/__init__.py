"""Recorded series and alerts, each alert with its page of the runbook."""
