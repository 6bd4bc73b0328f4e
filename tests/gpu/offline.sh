#!/usr/bin/env bash
# Runs the checks on a machine with NVIDIA GPUs that has no network, no Docker and no servers, but the driver, nvcc and
# Python: unpacks what pack.sh packed, tells the engine of the GPUs, starts it, and runs python -m tests.gpu.
#   offline.sh BUNDLE.tar.xz [ARGUMENT…]     as root, on a machine that is nobody's: it gets files below /usr, /opt and /etc/cdi
set -euo pipefail
bundle=$(realpath "$1")
shift
cd "$(dirname "$0")/../.."
home=/opt/inference-server-check
export PATH=$home/engine:$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin:/usr/sbin:/sbin DOCKER_HOST=unix://$home/docker.sock
mkdir -p "$home" /etc/cdi
tar -C "$home" -xJf "$bundle" --no-same-owner
tar -C "$home/root" -c . | tar -C / -x --skip-old-files --keep-directory-symlink --no-same-owner
for folder in /usr/local/nvidia/lib64 /usr/local/nvidia/lib; do # where some machines have the driver's libraries
  if [ -e "$folder/libnvidia-ml.so.1" ]; then echo "$folder" >/etc/ld.so.conf.d/inference-server-check.conf; fi
done
ldconfig
python3 -m venv --without-pip "$home/venv"
cp -a "$home"/site/. "$home"/venv/lib/python3*/site-packages/

# Else a node that CUDA needs may be made only by the first program that computes.
if command -v nvidia-modprobe >/dev/null; then nvidia-modprobe -u -c 0; fi

# What `nvidia-ctk cdi generate` would write, for compute: each GPU's device node by UUID, and for all of them the
# driver's shared nodes and libraries.
"$home/venv/bin/python" - <<'PYTHON'
import json
import re
import subprocess
from pathlib import Path

NAMES = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1")
FOLDERS = ("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/x86_64-linux-gnu")
query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
gpus = [line.split(", ") for line in subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()]
libraries = {name: path for name in NAMES for folder in FOLDERS if (path := Path(folder, name)).exists()}
shared = [path for path in Path("/dev").glob("nvidia*") if not path.is_dir() and not re.fullmatch(r"nvidia\d+", path.name)]
spec = {
    "cdiVersion": "0.6.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {"name": uuid, "containerEdits": {"deviceNodes": [{"path": f"/dev/nvidia{index}"}]}} for index, uuid in gpus
    ],
    "containerEdits": {
        "deviceNodes": [{"path": str(path)} for path in shared],
        "mounts": [
            {
                "hostPath": str(path.resolve()),
                "containerPath": f"/usr/lib/x86_64-linux-gnu/{name}",
                "options": ["ro", "nosuid", "nodev", "bind"],
            }
            for name, path in libraries.items()
        ],
    },
}
Path("/etc/cdi/nvidia.json").write_text(json.dumps(spec, indent=1))
PYTHON

# No bridge and no firewall rules: containers run without network.
cat >"$home/daemon.json" <<JSON
{"features": {"cdi": true}, "cdi-spec-dirs": ["/etc/cdi"], "bridge": "none", "iptables": false, "ip6tables": false,
 "userland-proxy": false, "data-root": "$home/data", "exec-root": "$home/exec", "pidfile": "$home/docker.pid",
 "hosts": ["unix://$home/docker.sock"]}
JSON
if ! [ -e /sys/fs/cgroup/cgroup.controllers ] && ! [ -d /sys/fs/cgroup/memory ]; then
  mount -t cgroup2 none /sys/fs/cgroup
fi
dockerd --config-file "$home/daemon.json" >"$home/dockerd.log" 2>&1 </dev/null &
engine=$!
trap 'kill $engine && wait $engine || true' EXIT
for _ in $(seq 120); do
  if docker version >/dev/null 2>&1; then break; fi
  sleep 0.25
done
docker version >/dev/null || { tail -20 "$home/dockerd.log" >&2 && exit 1; }

"$home/venv/bin/python" -m tests.gpu "$@"
