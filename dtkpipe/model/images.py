"""The images that tasks run in: each name once."""

RUNNER = "runner"
"""The one image that holds dtkpipe and every tool its steps call; catalog/runner/Containerfile."""

KANIKO = "kaniko"
"""kaniko's own image: it builds in its own root file system, so it runs from no other. The last of its line."""

DEFAULTS = {RUNNER: "quay.io/dtkpipe/runner:0.1.0", KANIKO: "gcr.io/kaniko-project/executor:v1.24.0"}
"""What a name stands for when the configuration does not say otherwise (`images.runner`)."""
