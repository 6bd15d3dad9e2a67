"""A seeded event loop with virtual time and a simulated Kafka broker, for campaigns of simulated hours."""
