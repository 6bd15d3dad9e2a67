"""Runs the embedded broker: one Apache Kafka process on this machine, with a Java runtime and jars from package registries."""
