"""Build the validators and fetch the CRDs now, so that the first test does not wait for it."""

from tests.validators import program, source

for engine in ("argo", "tekton"):
    print(program(engine))
    for version in ("newest", "oldest"):
        print(source(engine, version))
