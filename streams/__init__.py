"""What flows: settings, topics, records, delivery, the gateway. Knows Kafka; knows no model and no agent."""
