# just --list shows what there is. All of it runs in .venv, which `just setup` makes.

python := ".venv/bin/python"

[private]
default:
    @just --list --unsorted

# Start everything on this machine, run the example model on a posted zip, and stay up
[no-exit-message]
demo: setup
    @{{ python }} -m demo up
    @{{ python }} -m demo run

# Stop what the demo started; its data stays
down:
    @{{ python }} -m demo down

# Show the demo's processes
status:
    @{{ python }} -m demo status

# Follow the demo's logs: all, or one process's (just logs core)
[no-exit-message]
logs *NAME:
    @{{ python }} -m demo logs {{ NAME }}

# Stop the demo and delete its data (asks; --yes doesn't)
[no-exit-message]
reset *ARGS:
    @{{ python }} -m demo reset {{ ARGS }}

# Make a local CA and a server certificate for DOMAIN in tls/certs
[no-exit-message]
certs DOMAIN *ARGS: setup
    @{{ python }} -m tls.certs {{ DOMAIN }} {{ ARGS }}

# Install what is missing on this machine, and the Python packages into .venv
setup:
    @demo/setup.sh

# Run the tests: all, or what pytest's arguments select (just test tests/unit -k certs)
[no-exit-message]
[positional-arguments]
test *ARGS:
    @demo/setup.sh tests
    @{{ python }} -m pytest "$@"

# Check format, lint, types, who imports whom, and run the unit tests
check: setup
    {{ python }} -m ruff format --check
    {{ python }} -m ruff check
    {{ python }} -m mypy
    .venv/bin/lint-imports
    {{ python }} -m pytest -q tests/unit

# Measure: just bench overhead, just bench recovery
bench *ARGS: setup
    @{{ python }} -m tests.bench {{ ARGS }}

# Put the real system under load while its parts are killed, cut off and frozen (just chaos --seed 2)
[no-exit-message]
[positional-arguments]
chaos *ARGS:
    @demo/setup.sh tests
    @{{ python }} -m tests.chaos "$@"

# Check the whole system on this machine's NVIDIA GPUs, as root: docs/gpus.md
[no-exit-message]
[positional-arguments]
gpus *ARGS: setup
    @{{ python }} -m tests.gpu "$@"

# Format the code and apply the linter's safe fixes
fmt: setup
    {{ python }} -m ruff check --fix
    {{ python }} -m ruff format
