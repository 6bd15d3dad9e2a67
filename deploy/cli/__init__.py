"""The subcommands of `castline`. Each module holds one subcommand, and its click command is called `command`."""
