"""Where the line between normal and anomalous is drawn: rules, costs, calibration, history."""
