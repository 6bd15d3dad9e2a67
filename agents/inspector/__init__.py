"""Judges pictures: image records in, one verdict for each picture out, and heat maps of suspicious pictures later."""
