"""The networks of TimEHR: a generator and a critic of images, series by steps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Images are halved so many times, so their sides are multiples of 2 to this power.
_HALVINGS = 3


def side(n: int) -> int:
    """The least side of an image that has room for ``n`` rows or columns."""
    unit = 2**_HALVINGS
    return max(-(-n // unit), 1) * unit


def _down(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1)


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1)


class Generator(nn.Module):
    """A U-Net that makes one image of noise, conditions and planes that are given.

    Args:
        shape: rows and columns of images.
        n_conditions: numbers that are known of a stay.
        n_given: planes that are given.
        noise: numbers of noise that a whole image shares.
        features: channels after the first halving.
        gain: of all that is added to ``base``.
    """

    # Planes that noise and conditions become: the first is added to what comes out.
    n_planes = 3
    # Numbers of noise of each step, which every row weighs in its own way.
    n_shared = 12

    def __init__(
        self,
        shape: tuple[int, int],
        n_conditions: int,
        n_given: int,
        noise: int,
        features: int,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.shape, self.noise, self.gain = shape, noise, gain
        self.weights = nn.Parameter(torch.randn(shape[0], self.n_shared) / self.n_shared)
        n_inputs = self.n_planes + n_given + 2
        widths = [features * 2**i for i in range(_HALVINGS)]
        self.planes = nn.Linear(noise + n_conditions, self.n_planes * shape[0] * shape[1])
        self.downs = nn.ModuleList(map(_down, [n_inputs, *widths[:-1]], widths))
        # Each takes the one below, what came down beside it, and noise of its own.
        below = [widths[-1], *(2 * width for width in widths[-2::-1])]
        self.ups = nn.ModuleList(
            _up(w + 1, out) for w, out in zip(below, [*widths[-2::-1], 1], strict=True)
        )
        self.near = nn.Conv2d(n_inputs, 1, kernel_size=3, padding=1)
        # What is made of nothing: where training begins.
        self.base = nn.Parameter(torch.zeros(shape))

    def forward(self, conditions: Tensor, given: Tensor, rng: torch.Generator) -> Tensor:
        """Images [stays, 1, rows, columns].

        Args:
            conditions: [stays, n_conditions].
            given: [stays, n_given, rows, columns].
            rng: of the noise, on the CPU, so that it is the same on every device.
        """
        n = len(conditions)

        def noise(*shape: int) -> Tensor:
            return torch.randn(n, *shape, generator=rng).to(given)

        planes = self.planes(torch.cat([noise(self.noise), conditions], dim=1))
        planes = planes.view(n, self.n_planes, *self.shape)
        steps = (self.weights @ noise(self.n_shared, self.shape[1])).unsqueeze(1)
        inputs = torch.cat([planes, steps, noise(1, *self.shape), given], dim=1)
        found, beside = inputs, []
        for down in self.downs:
            found = F.leaky_relu(down(found), 0.2)
            beside.append(found)
        for up in self.ups:
            if found is not beside[-1]:
                found = torch.cat([F.leaky_relu(found, 0.2), beside[-1]], dim=1)
            beside.pop()
            found = up(torch.cat([found, noise(1, *found.shape[2:])], dim=1))
        return self.base + self.gain * (planes[:, :1] + steps + self.near(inputs) + found)


class Critic(nn.Module):
    """How real an image looks, given planes and conditions.

    Args:
        shape: rows and columns of images.
        n_conditions: numbers that are known of a stay.
        n_given: planes that are given.
        features: channels after the first halving.
    """

    def __init__(
        self, shape: tuple[int, int], n_conditions: int, n_given: int, features: int
    ) -> None:
        super().__init__()
        widths = [features * 2**i for i in range(_HALVINGS)]
        self.downs = nn.ModuleList(map(_down, [1 + n_given, *widths[:-1]], widths))
        rows, columns = (n // 2**_HALVINGS for n in shape)
        self.summary = nn.Linear(widths[-1] * rows * columns, 8 * features)
        self.direction = nn.Linear(n_conditions, 8 * features)

    def forward(self, image: Tensor, conditions: Tensor, given: Tensor) -> Tensor:
        """Scores [stays] of images [stays, 1, rows, columns]; the rest as for ``Generator``."""
        found = torch.cat([image, given], dim=1)
        for down in self.downs:
            found = F.leaky_relu(down(found), 0.2)
        found = F.leaky_relu(self.summary(found.flatten(1)), 0.2)
        return (found * self.direction(conditions)).sum(dim=1)


def chances_to_mask(logits: Tensor, rng: torch.Generator) -> Tensor:
    """A mask of 0 and 1 that is drawn, with the gradient of the chances.

    Args:
        logits: of the chances of 1.
        rng: of the draws, on the CPU.
    """
    uniform = torch.rand(logits.shape, generator=rng).clamp(1e-6, 1 - 1e-6).to(logits)
    soft = torch.sigmoid(logits + torch.logit(uniform))
    return (soft > 0.5).to(soft) + soft - soft.detach()


def draw_mask(masks: Generator, known: Tensor, staying: Tensor, rng: torch.Generator) -> Tensor:
    """Which series have a value when, 0 or 1; nothing beyond the end of a stay."""
    return chances_to_mask(masks(known, staying, rng), rng) * staying


def draw_values(values: Generator, known: Tensor, given: Tensor, rng: torch.Generator) -> Tensor:
    """Normal scores where the first plane of ``given``, the mask, is 1, and 0 elsewhere."""
    return values(known, given, rng) * given[:, :1]
