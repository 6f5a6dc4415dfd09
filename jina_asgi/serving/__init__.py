"""From options to an application that answers: Runners assembled, mounted, served and ended.

No folder below imports it.
"""
