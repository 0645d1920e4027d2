"""The images that tasks run in: each name once."""

RUNNER = "runner"
"""The one image that holds dtkpipe and every tool its steps call; catalog/runner/Containerfile."""

DEFAULTS = {RUNNER: "quay.io/dtkpipe/runner:0.1.0"}
"""What a name stands for when the configuration does not say otherwise (`images.runner`)."""
