"""The review queue: what people say of parts that the model doubts."""
