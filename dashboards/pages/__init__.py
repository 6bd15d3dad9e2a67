"""One module for each dashboard, with its panels and with the alerts that link to this dashboard."""
