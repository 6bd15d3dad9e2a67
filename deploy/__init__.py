"""Starts and operates Castline: the command line, the supervisor, the embedded Kafka broker, the simulated foundry, example settings."""
