"""Writes the SHA-256 of every file, and says how far it is."""

import hashlib
from pathlib import Path

INPUT, OUTPUT = Path("/input"), Path("/output")
CHUNK_BYTES = 2**20


def main() -> None:
    files = sorted(path for path in INPUT.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in files) or 1
    done = 0
    told = -1
    with (OUTPUT / "sha256sums.txt").open("w") as sums:
        for path in files:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    done += len(chunk)
                    if (percent := done * 100 // total) > told:
                        told = percent
                        print(f"progress: {percent}% {path.relative_to(INPUT)}", flush=True)
            sums.write(f"{digest.hexdigest()}  {path.relative_to(INPUT)}\n")


if __name__ == "__main__":
    main()
