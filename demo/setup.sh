#!/usr/bin/env bash
# Makes this machine ready for the demo and the tests: looks for what is missing, installs it from the distribution
# where it may (root, or sudo without a password, on Debian or Ubuntu), says what to install where it may not.
# When nothing is missing it touches no network.
#   setup.sh [demo | bench | tests | compose]: for what; the tests need most
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
LOCK=requirements-dev.txt
STAMP=$VENV/installed-from.sha256
POLICY=/usr/sbin/policy-rc.d
PURPOSE=${1:-demo}

say() { printf 'setup: %s\n' "$*" >&2; } # stdout is that of what it makes ready

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

may_install() { command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }

has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

# --- what is missing -------------------------------------------------------------------------------------------------

engine_answers() { has docker && timeout 10 docker version >/dev/null 2>&1; }

# A private engine needs root; who isn't must be able to reach the machine's.
has_engine() { engine_answers || { [ "$(id -u)" = 0 ] && has docker && has dockerd && has containerd && has runc; }; }

# The image's busybox runs without the C library of this machine, so it has to be a static one.
has_static_busybox() { has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }

find_python() {
  local python
  for python in python3 python3.14 python3.13 python3.12 python3.11; do
    if has "$python" && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      command -v "$python"
      return
    fi
  done
  return 1
}

has_python_with_venv() {
  local python
  python=$(find_python) && "$python" -c 'import ensurepip, venv' 2>/dev/null
}

missing_packages() {
  has_python_with_venv || echo python3-venv
  [ "$PURPOSE" != compose ] || return 0 # which Docker it is stays the operator's choice
  has_engine || echo docker.io
  # Debian 13 and Ubuntu 25 ship the client apart.
  has docker || { apt-cache show docker-cli >/dev/null 2>&1 && echo docker-cli; } || true
  has redis-server || echo redis-server
  has rabbitmq-server || echo rabbitmq-server
  has_static_busybox || echo busybox-static
  case $PURPOSE in bench | tests) has wrk || echo wrk ;; esac
  [ "$PURPOSE" = tests ] || return 0
  has docker-registry || echo docker-registry
  # Docker hosts of the tests' own: their base images, their network and the way out of it.
  has debootstrap || echo debootstrap
  has ip || echo iproute2
  has slirp4netns || echo slirp4netns
  # Ubuntu has it as a snap only: there the tests of the pages are skipped.
  has chromium || { apt-cache show chromium >/dev/null 2>&1 && echo chromium; } || true
}

# --- packages --------------------------------------------------------------------------------------------------------

# Installed packages start their services at once and at every boot; the demo runs Redis and RabbitMQ itself.
without_services() {
  if [ ! -e "$POLICY" ]; then
    trap 'as_root rm -f "$POLICY"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
    "$@"
    as_root rm -f "$POLICY"
    trap - EXIT
  else
    "$@"
  fi
}

disable_service() { [ ! -d /run/systemd/system ] || as_root systemctl disable --quiet "$1" || true; }

apt() {
  local log
  log=$(mktemp)
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    rm -f "$log"
    say "apt-get $* failed"
    return 1
  fi
  rm -f "$log"
}

install_packages() {
  local package servers=() others=()
  for package in "$@"; do
    case $package in
      redis-server | rabbitmq-server | docker-registry) servers+=("$package") ;;
      *) others+=("$package") ;;
    esac
  done
  if [ ${#servers[@]} -gt 0 ]; then
    without_services apt install --no-install-recommends "${servers[@]}"
    for package in "${servers[@]}"; do disable_service "$package"; done
  fi
  if [ ${#others[@]} -gt 0 ]; then
    apt install --no-install-recommends "${others[@]}"
  fi
}

give_up() {
  local missing=" $* "
  case $missing in *" docker.io "*)
    if has dockerd; then
      say "the Docker engine doesn't answer $(id -un): is it started (sudo systemctl start docker)," \
        "and is $(id -un) in its group (sudo usermod -aG docker $(id -un), then log in again)?"
      missing=${missing/ docker.io / }
    fi
    ;;
  esac
  if [[ $missing = *[![:space:]]* ]]; then
    say "missing; on Debian or Ubuntu: sudo apt-get install --no-install-recommends$missing"
  fi
  case $missing in *python3*)
    say "Python has to be 3.11 or newer; an older distribution needs one from elsewhere, as python3 on PATH"
    ;;
  esac
  exit 1
}

ensure_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -gt 0 ] || return 0
  may_install || give_up "${missing[@]}"
  apt update
  mapfile -t missing < <(missing_packages) # with the package lists there it knows more
  say "installing ${missing[*]}"
  install_packages "${missing[@]}"
  # What was installed may be less than what is needed: an old Python, an engine out of this user's reach.
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -eq 0 ] || give_up "${missing[@]}"
}

# --- Python ----------------------------------------------------------------------------------------------------------

ensure_python_environment() {
  local wanted
  wanted=$(sha256sum <"$LOCK")
  if [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c '' && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
    return 0
  fi
  say "installing the Python packages of $LOCK into $VENV"
  if ! { [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; }; then
    "$(find_python)" -m venv --clear "$VENV"
  fi
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$LOCK"
  printf '%s\n' "$wanted" >"$STAMP"
}

ensure_packages
ensure_python_environment
say "ready"
