"""What answers calls: Runners, and wrappers of Runners. No protocol is imported here."""
