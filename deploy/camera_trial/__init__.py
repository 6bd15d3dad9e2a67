"""Tries out a camera before its line is switched on: takes some pictures as the gateway would, and shows which of them would be refused.

`camera_trial.py` takes and measures the pictures. `trial_page.py` makes an HTML page of them.
"""
