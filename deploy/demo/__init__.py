"""The demo: a small foundry with simulated boards, a live view of its lines in the terminal, and an audit at the end."""
