"""The station: what people at the plant see and decide. A Django application that knows Castline's topics and its own tables only."""
