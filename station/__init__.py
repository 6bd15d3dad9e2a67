"""The station is the Django web application with which people in the plant watch the lines, review parts and choose models."""
