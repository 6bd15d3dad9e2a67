"""The demonstration: a small foundry with simulated boards, watched, and audited afterwards by an independent reader."""
