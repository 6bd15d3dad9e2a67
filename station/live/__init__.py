"""What happens now: the wall of lines, one line, and the talk with Kafka."""
