"""Many runs: sweeps, clusters, ablations, reproduced tables, comparison tables, trackers."""
