"""What Taskmaster costs and how fast it is, measured on a running cluster and reported as ratios of one run.

Absolute numbers speak of the machine; a ratio against what the same API server does in the same minute speaks of us.
"""
