"""Matrices of modules and kernels: which cells there are, what is stale and why, and what failures have in common."""
