"""What people see in Grafana, as code."""
