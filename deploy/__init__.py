"""Where it runs: the command line, the embedded broker, the supervisor, the demo."""
