"""The intruder's suite: each attack that Castline must withstand, as a test against the running product."""
