"""Fixtures live in tests/fixtures/, one file for each thing that is started or made."""

# What a fixture file imports comes before it.
pytest_plugins = ["tests.fixtures.cli", "tests.fixtures.registry", "tests.fixtures.toolkit", "tests.fixtures.modules",
                  "tests.fixtures.openshift", "tests.fixtures.building"]  # fmt: skip
