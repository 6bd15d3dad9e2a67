"""The subcommands of `castline`, one a module, each with a click command called `command`."""
