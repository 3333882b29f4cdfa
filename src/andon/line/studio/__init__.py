"""Thresholds of a running line: proposals and their approval, what other thresholds would do with stored parts."""
