"""Fixtures live in tests/fixtures/, one file for each thing that is started or made."""

pytest_plugins = ["tests.fixtures.cli", "tests.fixtures.registry", "tests.fixtures.toolkit"]
