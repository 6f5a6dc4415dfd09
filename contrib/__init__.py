"""Ready Executors and integrations, one folder each in the hub's own format. They use public names only."""
