"""Reads the YAML of Executors, Deployments and Flows. Nothing here runs or serves them."""
