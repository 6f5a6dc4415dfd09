"""No test asserts how long one example takes: Hypothesis would by itself."""

from hypothesis import settings

settings.register_profile("unhurried", settings.default, deadline=None)
settings.load_profile("unhurried")
