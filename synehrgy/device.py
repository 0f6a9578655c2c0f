"""Where a model runs."""

import torch

from synehrgy.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device of a setting: ``auto`` takes a CUDA GPU if there is one, else the CPU.

    Raises:
        UserError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"device={name} is not available ({reason}). Use device=auto or device=cpu."
        ) from error
    return device


def compute_type(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it, else float32."""
    # Compute capability 8 (Ampere) and newer; older cards only emulate it, slowly.
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if fast else torch.float32
