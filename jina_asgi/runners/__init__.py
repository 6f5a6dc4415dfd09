"""Runners, which answer calls, and wrappers of Runners. No protocol is imported here."""
