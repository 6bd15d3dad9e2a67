"""The demonstration: a small foundry with simulated boards, the live view of its lines, and an independent audit at the end."""
