"""Who may do what, and who did: accounts, roles, tokens, log-in, the audit log."""
