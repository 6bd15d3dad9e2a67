"""The station: the web application with which people in the plant watch, review and configure. Built with Django."""
