"""Whose fault it is that a container isn't created or doesn't start, by what engines say."""

import pytest

from gpu_agent.engine import ContainerInvalid, EngineError, GpuUnavailable, at_fault

RUNC = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
OLD_RUNC = "OCI runtime create failed: container_linux.go:367: starting container process caused: "
ROOT = "/var/lib/docker/overlay2/cd6f6e43e24d/merged"


@pytest.mark.parametrize(
    "words",
    [
        "unable to find user nvidia: no matching entries in passwd file",
        "unable to find group video: no matching entries in group file",
        "uids and gids must be in range 0-2147483647",
        "No command specified",
        "no command specified",
        RUNC + 'exec: "/nowhere": stat /nowhere: no such file or directory: unknown',
        RUNC + 'error during container init: exec: "sh": executable file not found in $PATH',
        OLD_RUNC + 'exec: "dash_init": executable file not found in $PATH: unknown',
        'starting container process caused "exec: \\"exec\\": executable file not found in $PATH"',
        f"lstat {ROOT}/bin/busybox/x: not a directory",
        "Cannot mkdir: /bin/busybox is not a directory",
        f"source {ROOT}/input is not directory",
        f"cannot mount volume over existing file, file exists {ROOT}/bin/busybox",
        RUNC + "error during container init: mkdir /etc/passwd/x: not a directory: unknown",
        RUNC + 'error during container init: chdir to cwd ("/root/x") set in config.json failed: permission denied',
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        RUNC + 'error during container init: error setting cgroup config for procHooks process: failed to write "100": '
        "write /sys/fs/cgroup/cpu/docker/21f90a875796/cpu.cfs_quota_us: invalid argument: unknown",
    ],
)
def test_the_models_fault_is_told_as_such(words: str) -> None:
    """Its image's, or its registration's."""
    assert at_fault(words) is ContainerInvalid


@pytest.mark.parametrize(
    "words",
    [
        'exec: "docker-init": executable file not found in $PATH',
        RUNC + 'exec: "/sbin/docker-init": permission denied: unknown',
        'failed to start shim: exec: "containerd-shim-runc-v2": executable file not found in $PATH: unknown',
        'start failed: runtime "io.containerd.runc.v2" binary not installed "containerd-shim-runc-v2": file does not '
        "exist: unknown",
        "OCI runtime create failed: unable to retrieve OCI runtime error (open /run/x/log.json: no such file "
        'or directory): exec: "runc": executable file not found in $PATH: unknown',
        "error while mounting volume '/var/lib/docker/volumes/v/_data': failed to mount local volume: mount "
        "/data/x:/var/lib/docker/volumes/v/_data, flags: 0x1000: not a directory",
        'Conflict. The container name "/x" is already in use by container "y".',
    ],
)
def test_the_hosts_breakage_is_not_the_models(words: str) -> None:
    """However much it reads like a command that isn't there."""
    assert at_fault(words) is EngineError


@pytest.mark.parametrize(
    "words",
    [
        'could not select device driver "" with capabilities: [[gpu]]',
        'could not select device driver "cdi" with capabilities: []',
        "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-4d7a1b2c-0000-1111-2222-333344445555",
        RUNC + 'error during container init: error mounting "/usr/lib/x86_64-linux-gnu/libcuda.so.1" to rootfs at '
        '"/usr/lib/x86_64-linux-gnu/libcuda.so.1": stat /usr/lib/x86_64-linux-gnu/libcuda.so.1: no such file or '
        "directory: unknown",
        RUNC
        + "error during container init: error running hook #0: error running hook: exit status 1, stdout: , stderr: "
        "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown",
        "OCI runtime create failed: unable to retrieve OCI runtime error (open /run/x/log.json: no such file "
        'or directory): exec: "nvidia-container-runtime": executable file not found in $PATH: unknown',
        "OCI runtime create failed: could not apply required modification to OCI specification: error modifying OCI "
        "spec: failed to inject CDI devices: unresolvable CDI devices nvidia.com/gpu=all: unknown",
    ],
)
def test_a_gpu_that_is_not_there_is_the_gpus_fault(words: str) -> None:
    """Another host may have one."""
    assert at_fault(words) is GpuUnavailable
