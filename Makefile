# dtkpipe: what people and CI call. `make` alone lists it. Every target installs what it needs first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT    := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0
TESTS  ?=
E2E    ?= tests/e2e
JOBS   ?= 2
# Our own cluster is made of namespaces and machines; another one (KUBECONFIG) takes no rights on this machine.
ROOT   := $(if $(KUBECONFIG),,$(if $(SUDO),sudo env PYTHONDONTWRITEBYTECODE=1))
MATRIX := --modules 'catalog/modules/debian/*' --releases debian-12,debian-13 --variant std,cloud,rt --arch x86_64,aarch64
DEMO   := dtkpipe submit --engine local --release debian-12 --variant cloud --repo catalog/samples/hello

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## List the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: .stamps/system  ## Build, sign, prove and publish a small module, here, on a real kernel
	@echo "$$ $(DEMO)"
	@$(BIN)/$(DEMO)
	@keys=$$(mktemp -d) && trap 'rm -rf "$$keys"' EXIT && \
	openssl req -x509 -newkey rsa:2048 -nodes -days 7 -subj "/CN=dtkpipe demo" -addext basicConstraints=CA:FALSE \
	  -addext keyUsage=digitalSignature -keyout "$$keys/key.pem" -out "$$keys/cert.pem" 2>/dev/null && \
	printf '\n$$ %s\n' "$(DEMO) --sign-key key.pem --sign-cert cert.pem" && \
	$(BIN)/$(DEMO) --sign-key "$$keys/key.pem" --sign-cert "$$keys/cert.pem" && \
	printf '\n$$ dtkpipe describe @latest\n' && $(BIN)/dtkpipe describe @latest

# Exit code 10: a cell is red, as some are.
.PHONY: demo-matrix
demo-matrix: .stamps/system  ## Prove modules out of Debian, as they are, on twelve of its kernels; the page is dist/matrix/index.html
	$(BIN)/dtkpipe matrix submit $(MATRIX) --jobs $(JOBS) || [ $$? = 10 ]
	$(BIN)/dtkpipe matrix report $(MATRIX) --dir dist/matrix

.PHONY: matrix-picture
matrix-picture: demo-matrix  ## Draw that page for the README, with Chromium
	$(BIN)/python -m tests.browser dist/matrix/index.html docs/matrix.png
	$(BIN)/python -m tests.browser dist/matrix/index.html docs/matrix-dark.png 1400 dark

.PHONY: test
test: lint .stamps/judges  ## Lint, and all tests that need no cluster, the real-tool ones included
	$(BIN)/pytest -n $(JOBS) --dist loadfile --durations=15 $(TESTS)

.PHONY: e2e
e2e: .stamps/cluster  ## The tests on a real cluster that say most, in ten minutes: their own cluster, or the one of KUBECONFIG
	$(ROOT) $(BIN)/python -m tests.e2e -m core --durations=15 tests/e2e

.PHONY: e2e-all
e2e-all: .stamps/cluster  ## All tests on a real cluster; E2E=tests/e2e/test_install.py for some
	$(ROOT) $(BIN)/python -m tests.e2e --durations=15 $(E2E)

.PHONY: bench-e2e
bench-e2e: .stamps/cluster  ## The same for what runs on a cluster
	@$(ROOT) $(BIN)/python -m tests.e2e.bench

.PHONY: lint
lint: .stamps/system  ## Style, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: .stamps/system  ## Measure what the product promises, and print it as a table
	@$(BIN)/python -m tests.bench

.PHONY: format
format: .stamps/python  ## Let ruff write the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: .stamps/python  ## Write the generated pages again
	$(BIN)/python -m tests.reference

.PHONY: wheel
wheel: .stamps/python  ## Build the wheel into dist/
	$(PIP) wheel --no-deps --wheel-dir dist .

.PHONY: setup
setup: .stamps/system  ## Only install what the other targets need

.PHONY: clean
clean:  ## Remove what was made in this folder (the cache of toolkits and kernels stays)
	rm -rf $(VENV) .stamps dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip reads the group `dev` of pyproject.toml from version 25.1 on; distributions have older ones.
.stamps/python: pyproject.toml
	@mkdir -p $(@D)
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Installing Python"; { $(APT) update && $(APT) install --no-install-recommends python3-venv ca-certificates; } >/dev/null; }
	@echo "Setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install 'pip>=25.1'
	@$(PIP) install --editable . --group dev
	@touch $@

# The programs that the steps call: the list is doctor's.
.stamps/system: .stamps/python dtkpipe/app/doctor.py
	$(BIN)/dtkpipe doctor --fix --for build,toolkits,verify,verify-arm,secure-boot,registry,tests
	@touch $@

# The engines' own validators are Go programs (tests/validators). They take some minutes, once.
.stamps/judges: .stamps/python $(wildcard tests/validators/*.py tests/validators/*/go.mod tests/validators/*/main.go)
	@$(BIN)/python -c 'from tests.validators import go; go()' 2>/dev/null || $(PIP) install --group go
	@echo "Building the engines' validators"
	@$(BIN)/python -m tests.validators
	@touch $@

# What the tests' cluster is made of: programs of the distribution, Go programs (some ten minutes, once), a disk.
# Another cluster has its own.
.stamps/cluster: .stamps/system $(wildcard tests/e2e/cluster/*.py tests/e2e/cluster/go/*/*)
ifndef KUBECONFIG
	$(ROOT) $(BIN)/dtkpipe doctor --fix --for e2e
	@$(ROOT) $(BIN)/python -c 'from tests.validators import go; go()' 2>/dev/null || $(PIP) install --group go
	@$(ROOT) $(BIN)/python -m tests.e2e.cluster build
	@touch $@
endif
