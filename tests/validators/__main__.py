"""Build the validators and fetch the CRDs now, so that the first test does not wait for it."""

from tests.validators import PROGRAMS, program, source

for name in PROGRAMS:
    print(program(name))
for engine in ("argo", "tekton"):
    for version in ("newest", "oldest"):
        print(source(engine, version))
