"""Networks of RTSGAN: a recurrent autoencoder of records, a generator of its codes, a critic."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synehrgy.baselines.series import SeriesGrid

# Normal scores beyond this are outside of what was seen; what the decoder is fed stays within.
_MOST_SCORE = 3.1
# Of the loss of time gaps, as in the paper.
_GAP_WEIGHT = 0.1


class Records(NamedTuple):
    """Patients as the networks see them; padded with zeros beyond ``length``.

    Attributes:
        facts: values of the static facts, then 1 or 0 for each fact that is known or missing
            [patients, channels + facts].
        filled: of each series the last value up to a time point [patients, points, channels].
        observed: 1 where a series has a value at a time point [patients, points, series].
        times: step of the grid of a time point, from 1 [patients, points].
        length: time points [patients].
    """

    facts: Tensor
    filled: Tensor
    observed: Tensor
    times: Tensor
    length: Tensor

    def take(self, rows: Tensor) -> "Records":
        """Some of the patients."""
        return Records(*(part[rows] for part in self))

    def to(self, device: torch.device) -> "Records":
        """The same on a device, with numbers as networks take them."""
        facts, filled, observed, times, length = (part.to(device) for part in self)
        return Records(facts, filled, observed.float(), times.long(), length.long())


@dataclass(frozen=True)
class Layout:
    """Which channels belong to which item; an item is a series or a static fact.

    Attributes:
        channels: of each item.
        categorical: whether these are the levels of one; else there is one channel, of scores.
    """

    channels: list[slice]
    categorical: list[bool]

    @classmethod
    def of(cls, grid: SeriesGrid) -> "Layout":
        """That of the arrays of a grid."""
        return cls(grid.channels, [v.kind == "categorical" for v in grid.schema.variables])

    @property
    def n_items(self) -> int:
        """How many items there are."""
        return len(self.channels)

    @property
    def n_channels(self) -> int:
        """How many channels they have together."""
        return self.channels[-1].stop

    @property
    def levels(self) -> list[tuple[int, slice]]:
        """The categorical items, with their channels."""
        return [(i, self.channels[i]) for i in range(self.n_items) if self.categorical[i]]

    def by_channel(self, items: Tensor) -> Tensor:
        """What holds of an item, for each of its channels [..., channels]."""
        item = [i for i, mine in enumerate(self.channels) for _ in range(mine.start, mine.stop)]
        return items[..., item]

    def loss(self, predicted: Tensor, target: Tensor, observed: Tensor) -> Tensor:
        """Mean over what is observed: squared error of scores, cross-entropy of levels.

        Args:
            predicted: scores and logits [..., channels].
            target: scores, and 1 for the right level [..., channels].
            observed: 1 for the items that count [..., items].
        """
        items = [i for i in range(self.n_items) if not self.categorical[i]]
        at = [self.channels[i].start for i in items]
        total = ((predicted[..., at] - target[..., at]) ** 2 * observed[..., items]).sum()
        for i, mine in self.levels:
            chances = F.log_softmax(predicted[..., mine], -1)
            total = total - ((chances * target[..., mine]).sum(-1) * observed[..., i]).sum()
        return total / observed.sum().clamp(min=1)

    def draw(self, predicted: Tensor, rng: torch.Generator) -> Tensor:
        """Scores as predicted, and one level of each categorical item, drawn [..., channels]."""
        found = predicted.clamp(-_MOST_SCORE, _MOST_SCORE)
        for _, mine in self.levels:
            level = draw_class(predicted[..., mine], rng)
            found[..., mine] = F.one_hot(level, mine.stop - mine.start).to(found.dtype)
        return found


def uniform(like: Tensor, rng: torch.Generator) -> Tensor:
    """Draws between 0 and 1, the same ones on every device."""
    return torch.rand(like.shape, generator=rng).to(like.device)


def draw_class(logits: Tensor, rng: torch.Generator) -> Tensor:
    """One class by the chances of a softmax [...]."""
    # The greatest of logits with Gumbel noise is such a draw.
    noise = -torch.log(-torch.log(uniform(logits, rng).clamp(1e-7, 1 - 1e-7)))
    return (logits + noise).argmax(-1)


def draw_observed(logits: Tensor, rate: Tensor, rng: torch.Generator) -> Tensor:
    """1 where there is a value [..., items]; what always or never had one keeps to it."""
    found = uniform(logits, rng) < torch.sigmoid(logits)
    return ((found | (rate == 1)) & (rate > 0)).float()


class Autoencoder(nn.Module):
    """A record as one vector, and back: first its facts, then time point by time point.

    The vector has three parts: what facts are told from, and where the two recurrent networks of
    the decoder begin, that which decides and that which generates.
    """

    fact_rate: Tensor
    series_rate: Tensor
    scale: Tensor

    def __init__(self, facts: Layout, series: Layout, n_steps: int, hidden: int) -> None:
        """Set it up.

        Args:
            facts, series: the channels of static facts and of series.
            n_steps: of the grid.
            hidden: width of each recurrent network.
        """
        super().__init__()
        self.layout, self.series, self.n_steps = facts, series, n_steps
        n_facts = facts.n_channels + facts.n_items
        n_series = series.n_channels + series.n_items
        self.embed = nn.Linear(n_facts + n_series, hidden)
        self.time = nn.Embedding(n_steps + 1, hidden)
        self.encoder = nn.GRU(hidden, hidden, batch_first=True)
        self.whole = nn.Linear(3 * hidden, hidden)
        self.starts = nn.Linear(hidden, 2 * hidden)
        self.facts = nn.Linear(hidden, n_facts)
        self.decide = nn.GRU(hidden, hidden, batch_first=True)
        self.observed = nn.Linear(hidden, series.n_items)
        self.gap = nn.Linear(hidden, n_steps)
        self.decay = nn.Linear(2 * series.n_items, hidden)
        self.generate = nn.GRU(2 * hidden, hidden, batch_first=True)
        self.values = nn.Linear(hidden, series.n_channels)
        # Shares of patients with a fact and of time points with a series, of the train patients.
        self.register_buffer("fact_rate", torch.ones(facts.n_items))
        self.register_buffer("series_rate", torch.ones(series.n_items))
        # Root mean square of each number of the vectors, by which a GAN has them divided.
        self.register_buffer("scale", torch.ones(self.width))

    def note_rates(self, records: Records) -> None:
        """Keep what is always known and what is never measured."""
        self.fact_rate.copy_(records.facts[:, self.layout.n_channels :].mean(0))
        n_points = records.length.sum().clamp(min=1)
        self.series_rate.copy_(records.observed.float().sum((0, 1)) / n_points)

    @property
    def width(self) -> int:
        """Of the vector of a record."""
        return 3 * self.facts.in_features

    def encode(self, records: Records) -> Tensor:
        """Each record as a vector [patients, width]."""
        points = self._points(records.facts, records.filled, records.observed, records.times)
        out, _ = self.encoder(points)
        # A stay without time points is one that has a single empty one.
        length = records.length.clamp(min=1)
        there = _within(length, out)
        last = out[torch.arange(len(out), device=out.device), length - 1]
        mean = (out * there).sum(1) / length[:, None]
        most = out.masked_fill(there == 0, -1.0).amax(1)
        whole = self.whole(torch.cat([most, mean, last], -1))
        return F.leaky_relu(torch.cat([whole, self.starts(last)], -1), 0.2)

    def loss(self, records: Records) -> Tensor:
        """How far the decoder, told all that came before, is from the records."""
        latent = self.encode(records)
        facts, known = self._facts(latent)
        true_facts, true_known = records.facts.split([facts.shape[-1], known.shape[-1]], -1)
        observed, gap, values = self.follow(latent, records)
        there = _within(records.length, values)
        n_points = there.sum().clamp(min=1)
        of_observed = F.binary_cross_entropy_with_logits(
            observed, records.observed, weight=there, reduction="sum"
        ) / (n_points * self.series.n_items)
        true_gap = (records.times - _shift(records.times) - 1).clamp(min=0)
        of_gap = F.cross_entropy(gap.transpose(1, 2), true_gap, reduction="none")
        return (
            self.layout.loss(facts, true_facts, true_known)
            + F.binary_cross_entropy_with_logits(known, true_known)
            + self.series.loss(values, records.filled, records.observed)
            + of_observed
            + _GAP_WEIGHT * (of_gap * there[..., 0]).sum() / n_points
        )

    def follow(self, latent: Tensor, records: Records) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder predicts of each time point, told all that came before.

        Args:
            latent: [patients, width].
            records: what came before; of a time point itself also which series have a value.

        Returns:
            Logits of which series have a value [patients, points, series], logits of the steps to
            the time point [patients, points, steps], values [patients, points, channels].
        """
        whole, decide, generate = (part.contiguous() for part in latent.chunk(3, -1))
        before = _shift(records.filled), _shift(records.observed), _shift(records.times)
        decided, _ = self.decide(self._points(records.facts, *before), decide[None])
        lag = _lags(records.observed, records.times) / self.n_steps
        told = self._generating(decided, records.observed, lag, whole[:, None])
        out, _ = self.generate(told, generate[None])
        return self.observed(decided), self.gap(decided), self.values(out)

    def decode(self, latent: Tensor, n_points: int, rng: torch.Generator) -> Records:
        """Records, each with ``n_points`` time points; those after the last step have time 0."""
        whole, decide, generate = (part.contiguous() for part in latent.chunk(3, -1))
        facts, known = self._facts(latent)
        known = draw_observed(known, self.fact_rate, rng)
        facts = self.layout.draw(facts, rng) * self.layout.by_channel(known)
        facts = torch.cat([facts, known], -1)
        n, n_series = len(latent), self.series.n_items
        filled = latent.new_zeros(n, 1, self.series.n_channels)
        observed = latent.new_zeros(n, 1, n_series)
        seen = latent.new_zeros(n, 1, n_series)
        time = torch.zeros(n, 1, dtype=torch.long, device=latent.device)
        decide, generate = decide[None], generate[None]
        whole = whole[:, None]
        points = []
        for _ in range(n_points):
            decided, decide = self.decide(self._points(facts, filled, observed, time), decide)
            step = time + 1 + draw_class(self.gap(decided), rng)
            time = step.clamp(max=self.n_steps)
            observed = draw_observed(self.observed(decided), self.series_rate, rng)
            lag = (time[..., None] - seen) / self.n_steps
            seen = torch.where(observed == 1, time[..., None].float(), seen)
            out, generate = self.generate(self._generating(decided, observed, lag, whole), generate)
            fresh = self.series.draw(self.values(out), rng)
            filled = torch.where(self.series.by_channel(observed) == 1, fresh, filled)
            points.append((filled, observed, step.where(step <= self.n_steps, 0)))
        series = [torch.cat(part, 1) for part in zip(*points, strict=True)]
        length = torch.full((n,), n_points, device=latent.device)
        return Records(facts, series[0], series[1], series[2], length)

    def _facts(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted facts [patients, channels], logits of which are known [patients, facts]."""
        whole, _, _ = latent.chunk(3, -1)
        facts, known = self.facts(whole).split([self.layout.n_channels, self.layout.n_items], -1)
        return facts, known

    def _points(self, facts: Tensor, filled: Tensor, observed: Tensor, times: Tensor) -> Tensor:
        """What a recurrent network is told of each time point [patients, points, hidden]."""
        facts = facts[:, None].expand(-1, filled.shape[1], -1)
        return self.embed(torch.cat([facts, filled, observed], -1)) + self.time(times)

    def _generating(self, decided: Tensor, observed: Tensor, lag: Tensor, whole: Tensor) -> Tensor:
        """What the values of a time point come from [patients, points, 2 * hidden]."""
        kept = torch.exp(-F.relu(self.decay(torch.cat([observed, lag], -1))))
        return torch.cat([decided * kept, whole.expand(-1, decided.shape[1], -1)], -1)


class Generator(nn.Module):
    """Noise to vectors of records; residual blocks."""

    def __init__(self, noise: int, width: int, n_blocks: int = 4) -> None:
        """Set it up for noise and vectors of these widths."""
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(noise, noise), nn.LayerNorm(noise), nn.LeakyReLU(0.2))
            for _ in range(n_blocks)
        )
        self.out = nn.Linear(noise, width)

    def forward(self, noise: Tensor) -> Tensor:
        """Vectors [patients, width] from noise [patients, noise]."""
        for block in self.blocks:
            noise = noise + block(noise)
        # As the encoder ends, so that both have the same range.
        return F.leaky_relu(self.out(noise), 0.2)


def critic(width: int) -> nn.Sequential:
    """A network that scores vectors of records; what it finds real is greater."""
    sizes = [width, max(2 * width // 3, 1), max(width // 3, 1)]
    return nn.Sequential(
        nn.Linear(sizes[0], sizes[1]),
        nn.LeakyReLU(0.2),
        nn.Linear(sizes[1], sizes[2]),
        nn.LeakyReLU(0.2),
        nn.Linear(sizes[2], 1),
    )


def _shift(points: Tensor) -> Tensor:
    """Of each time point the one before it; zeros before the first."""
    return torch.cat([torch.zeros_like(points[:, :1]), points[:, :-1]], 1)


def _within(length: Tensor, points: Tensor) -> Tensor:
    """1 for the time points that there are [patients, points, 1]."""
    at = torch.arange(points.shape[1], device=points.device)
    return (at < length[:, None]).float()[..., None]


def _lags(observed: Tensor, times: Tensor) -> Tensor:
    """Steps since each series was seen before a time point [patients, points, series]."""
    at = times[..., None].float()
    seen = (observed * at).cummax(1).values
    return (at - _shift(seen)).clamp(min=0)
