"""The command line: a few lines over the public functions; every import that costs time is inside its command.

Results go to stdout (one JSON document with `--json`), progress and log to stderr.
"""
