"""Parts of the past: found by filters, told one by one, exported."""
