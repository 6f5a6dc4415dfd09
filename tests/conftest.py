"""Hypothesis in two ways: the same examples in every run of the tests, or a search for new ones (`tox run -e fuzz`).

Neither says how long one example may take: no test asserts that, and Hypothesis would by itself.
"""

from hypothesis import settings

settings.register_profile("same", settings.default, deadline=None, derandomize=True)
settings.register_profile("search", settings.default, deadline=None, max_examples=1000)
settings.load_profile("same")
