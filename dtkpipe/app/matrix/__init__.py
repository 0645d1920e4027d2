"""Matrices: plan them, build what is stale, report what is red and why."""
