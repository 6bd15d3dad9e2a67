"""One module for each dashboard, with its panels and with the alerts whose links open it."""
