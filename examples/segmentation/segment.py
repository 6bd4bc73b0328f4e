"""Segments volumes: a mask and its size in voxels for each, on a GPU if there is one."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from network import network

INPUT, OUTPUT, MODEL = Path("/input"), Path("/output"), Path("/model")


@torch.inference_mode()
def main(input: Path = INPUT, output: Path = OUTPUT, model: Path = MODEL) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"on {torch.cuda.get_device_name() if device.type == 'cuda' else 'the CPU'}", flush=True)
    net = network().to(device).eval()
    net.load_state_dict(torch.load(model / "weights.pt", map_location=device, weights_only=True))
    volumes = sorted(input.rglob("*.npy"))
    if not volumes:
        sys.exit("The zip has no volume: it needs .npy files of three dimensions, with values from 0 to 1")
    voxels = {}
    for number, path in enumerate(volumes):
        name = path.relative_to(input)
        print(f"progress: {number / len(volumes):.2f} {name}", flush=True)
        volume = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32)).to(device)
        mask = (net(volume[None, None])[0, 0] > 0.5).cpu().numpy()
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(output / name, mask)
        voxels[str(name)] = int(mask.sum())
    print("progress: 100%", flush=True)
    (output / "voxels.json").write_text(json.dumps(voxels, indent=2))


if __name__ == "__main__":
    main()
