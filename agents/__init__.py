"""The workers: the gateway sends pictures to Kafka, the inspector judges them, the sorter moves gates, the archivist stores records."""
