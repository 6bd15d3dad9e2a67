"""Runs the embedded broker: one Apache Kafka process on this machine. Java and Kafka's jars come from package registries."""
