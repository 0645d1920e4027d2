"""Build the validators now, so that the first test does not wait for it."""

from tests.validators import program

for engine in ("argo", "tekton"):
    print(program(engine))
