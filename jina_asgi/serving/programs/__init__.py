"""The programs that run in other processes by `python -m`. Nothing else imports these modules."""
