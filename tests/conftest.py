"""Fixtures live in tests/fixtures/, one file for each thing that is started or made."""

import signal

from hypothesis import settings

# A shell starts what it puts into the background deaf to interrupts; what tests start would be, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines that run tests are busy: how long an example takes says nothing.
settings.register_profile("dtkpipe", deadline=None)
settings.load_profile("dtkpipe")

# What a fixture file imports comes before it.
pytest_plugins = [
    "tests.fixtures.cli", "tests.fixtures.registry", "tests.fixtures.submit", "tests.fixtures.toolkit",
    "tests.fixtures.modules", "tests.fixtures.drivers", "tests.fixtures.openshift", "tests.fixtures.building",
    "tests.fixtures.user",
]  # fmt: skip
