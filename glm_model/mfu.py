"""Model FLOPs utilisation: the useful operations of a run over what its devices could do."""

import torch

# Dense bf16 operations per second of one card, by a part of its name: the makers' data sheets.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12}


def peak_flops(device: torch.device) -> float | None:
    """What the device could do in bf16; None for CPUs and for cards of no known figure."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
