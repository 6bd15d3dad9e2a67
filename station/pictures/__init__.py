"""Pictures of parts: read from the object store or from Kafka, converted for browsers, and served under signed addresses."""
