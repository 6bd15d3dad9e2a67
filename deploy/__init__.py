"""Starts and operates Castline. Holds the command line, the supervisor, the embedded Kafka broker, the demo and the example settings."""
