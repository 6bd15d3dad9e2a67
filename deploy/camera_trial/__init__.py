"""Tries a camera before its line is switched on: takes some pictures as the gateway would, and shows what would become of them.

`camera_trial.py` takes and measures the pictures, `trial_page.py` writes them as a page for a browser.
"""
