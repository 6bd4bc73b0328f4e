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

# Delete the demo's data, and stop it (asks; --yes doesn't)
[no-exit-message]
reset-demo *ARGS:
    @{{ python }} -m demo reset {{ ARGS }}

# Make what Docker Compose needs: .env, secrets, a certificate for DOMAIN. Replaces nothing
[no-exit-message]
init DOMAIN: (setup "compose")
    @{{ python }} -m deploy init {{ DOMAIN }}

# Build the images, start everything in containers, and wait until it is ready
[no-exit-message]
up: (setup "compose")
    @{{ python }} -m deploy up

# Stop the containers, the demo, or both; their data stays
[no-exit-message]
down:
    @{{ python }} -m demo down
    @{{ python }} -m deploy down

# Show what runs: the demo's processes, the containers
[no-exit-message]
ps:
    @{{ python }} -m demo status
    @{{ python }} -m deploy ps

# Follow the logs: all, or one part's (just logs core)
[no-exit-message]
logs *NAME:
    @{{ python }} -m deploy logs {{ NAME }}

# Show the operator's page, of the containers or of the demo: agents, tasks, models, and what is wrong
[no-exit-message]
dashboard:
    @{{ python }} -m deploy dashboard

# Show who did what: posts, reads, changes, deletions, refusals (--since TIME --task UID --key ID --json)
[no-exit-message]
audit *ARGS:
    @{{ python }} -m deploy audit {{ ARGS }}

# Give core another token while everything runs; both open it until the same with --end
[no-exit-message]
rotate-token *ARGS:
    @{{ python }} -m deploy rotate-token {{ ARGS }}

# Make, list or revoke API keys (just keys make NAME --scope models; just keys --help): docs/keys.md
[no-exit-message]
[positional-arguments]
keys *ARGS:
    @{{ python }} -m deploy.keys "$@"

# Make this host, at ADDRESS, the first of a Docker swarm, and start the system on it
[no-exit-message]
swarm-init ADDRESS *OPTIONS: (setup "compose")
    @{{ python }} -m deploy swarm-init {{ ADDRESS }} {{ OPTIONS }}

# Say how a further host joins the swarm, as a worker or as a manager
[no-exit-message]
swarm-join ROLE: (setup "compose")
    @{{ python }} -m deploy swarm-join {{ ROLE }}

# Build and push the images, and replace what changed in the swarm, one after the other
[no-exit-message]
swarm-update: (setup "compose")
    @{{ python }} -m deploy swarm-update

# New containers and an empty RabbitMQ; models, tasks and results stay
[no-exit-message]
reset-soft *ARGS:
    @{{ python }} -m deploy reset soft {{ ARGS }}

# Delete all models and tasks; images, secrets and certificates stay
[no-exit-message]
reset-volumes *ARGS:
    @{{ python }} -m deploy reset volumes {{ ARGS }}

# Delete everything that init and up made
[no-exit-message]
reset-all *ARGS:
    @{{ python }} -m deploy reset all {{ ARGS }}

# Look at this host and the set-up: what is wrong, and what to do (--json for scripts)
[no-exit-message]
doctor *ARGS: (setup "compose")
    @{{ python }} -m deploy.doctor {{ ARGS }}

# Write models, tasks, zips and the set-up to FOLDER, backups/TIME by default, while everything goes on
[no-exit-message]
[positional-arguments]
backup *FOLDER: (setup "compose")
    @{{ python }} -m deploy.backup make "$@"

# Replace what Redis holds by a backup, and start (--yes: even if it holds something)
[no-exit-message]
[positional-arguments]
restore FOLDER *ARGS: (setup "compose")
    @{{ python }} -m deploy.backup restore "$@"

# Make a local CA and a server certificate for DOMAIN in tls/certs
[no-exit-message]
certs DOMAIN *ARGS: (setup "compose")
    @{{ python }} -m tls.certs {{ DOMAIN }} {{ ARGS }}

# Make a certificate for a client of a gateway that wants one, by that CA: docs/tls.md
[no-exit-message]
certs-client NAME: (setup "compose")
    @{{ python }} -m tls.certs --client {{ NAME }}

# Run the client, against the demo unless INFER_URL says otherwise (just infer submit passthrough FOLDER -o results)
[no-exit-message]
[positional-arguments]
infer *ARGS:
    @demo/setup.sh compose
    @[ -n "${INFER_URL-}" ] || export INFER_URL=https://localhost:8443 INFER_CA="${INFER_CA-tls/certs/ca.crt}"; \
        PYTHONPATH=client {{ python }} -m inference_client "$@"

# Install what is missing on this machine, and the Python packages into .venv
setup PURPOSE="demo":
    @demo/setup.sh {{ PURPOSE }}

# Run the tests: all, or what pytest's arguments select (just test tests/unit -k certs)
[no-exit-message]
[positional-arguments]
test *ARGS:
    @demo/setup.sh tests
    @{{ python }} -m pytest {{ if ARGS == "" { "--numprocesses 2 --dist loadfile" } else { "" } }} "$@"

# Check format, lint, types, who imports whom, and run the unit tests
check: setup
    {{ python }} -m ruff format --check
    {{ python }} -m ruff check
    {{ python }} -m mypy
    .venv/bin/lint-imports
    {{ python }} -m pytest -q tests/unit

# Measure what the system costs, all or by name, beside what the machine does without it (just bench polls --json FILE)
[no-exit-message]
[positional-arguments]
bench *ARGS: (setup "bench")
    @{{ python }} -m tests.bench "$@"

# Put the real system under load while its parts are killed, cut off and frozen (just chaos --seed 2)
[no-exit-message]
[positional-arguments]
chaos *ARGS:
    @demo/setup.sh tests
    @{{ python }} -m tests.chaos "$@"

# Fuzz what strangers' bytes reach first: all or by name (just fuzz zips --seconds 600 --jobs 4): docs/fuzzing.md
[no-exit-message]
[positional-arguments]
fuzz *ARGS: (setup "compose")
    @PYTHONPATH=client {{ python }} -m tests.fuzz "$@"

# List the licences of all Python packages; fails where one isn't among those that are allowed
[no-exit-message]
licences: setup
    @{{ python }} -m deploy.supply licences

# Print what the images are made of, with hashes, as CycloneDX JSON
[no-exit-message]
sbom: (setup "compose")
    @{{ python }} -m deploy.supply sbom

# Look up known vulnerabilities of the locked Python packages (exit code 2: the database isn't reached)
[no-exit-message]
audit-deps: (setup "compose")
    @{{ python }} -m deploy.supply audit-deps

# Check the whole system on this machine's NVIDIA GPUs, as root: docs/gpus.md
[no-exit-message]
[positional-arguments]
gpus *ARGS: setup
    @{{ python }} -m tests.gpu "$@"

# Format the code and apply the linter's safe fixes
fmt: setup
    {{ python }} -m ruff check --fix
    {{ python }} -m ruff format
