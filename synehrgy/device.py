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
    """bfloat16 where the device is fast at it, else float32."""
    if device.type == "cpu":
        # CPUs with matrix instructions for it.
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        # Compute capability 8 (Ampere) and newer; older cards only emulate it, slowly.
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if fast else torch.float32


def training_type(precision: str, device: torch.device) -> torch.dtype:
    """The type of the products in training; weights and their updates are float32 always.

    Args:
        precision: ``fp32``, ``bf16``, or ``auto`` for bf16 where the device multiplies it fast.
        device: where it is trained.
    """
    if precision == "auto":
        return compute_type(device)
    return torch.bfloat16 if precision == "bf16" else torch.float32
