"""The YAML of Executors, Deployments and Flows. Nothing here runs or serves what it describes."""
