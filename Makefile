# dtkpipe: what people and CI call. `make` alone lists it. Every target installs what it needs first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT    := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0
TESTS  ?= tests
JOBS   ?= 2
DEMO   := dtkpipe submit --engine local --release debian-12 --variant cloud --repo catalog/samples/hello

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

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

.PHONY: test
test: lint .stamps/judges  ## Everything CI runs: lint, and all tests, the real-tool ones included
	$(BIN)/pytest -n $(JOBS) --dist loadfile --durations=15 $(TESTS)

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
	$(BIN)/dtkpipe doctor --fix --for all
	@touch $@

# The engines' own validators are Go programs (tests/validators). They take some minutes, once.
.stamps/judges: .stamps/python $(wildcard tests/validators/*.py tests/validators/*/go.mod tests/validators/*/main.go)
	@$(BIN)/python -c 'from tests.validators import go; go()' 2>/dev/null || $(PIP) install --group go
	@echo "Building the engines' validators"
	@$(BIN)/python -m tests.validators
	@touch $@
