"""One module for each dashboard: its panels, and the alerts that lead to it."""
