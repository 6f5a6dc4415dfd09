"""What `python -m` runs in other processes. Nothing imports these modules but each other."""
