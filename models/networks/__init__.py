"""The networks, one file each, and what builds them."""
