"""The embedded broker: one Apache Kafka process on this machine, its Java runtime and its jars."""
