"""Accounts of the people who use the station: log-in, roles, tokens for programs, and the audit log."""
