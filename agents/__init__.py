"""The workers of the pipeline. Each consumes Kafka topics, decides, and writes its results to other topics, a board or a database."""
