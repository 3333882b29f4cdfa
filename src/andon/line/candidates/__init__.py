"""Models that may replace the one in use: compared with it on stored parts, run beside it, used with a reason, taken back."""
