"""Makes a served application of options: assembles Runners, mounts, serves and ends them.

No lower folder imports it.
"""
