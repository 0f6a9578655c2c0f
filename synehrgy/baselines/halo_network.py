"""The networks of HALO: a transformer over visits, and masked layers within a visit."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What a visit is. A patient begins with a stay and ends with END.
END, STAY, HOURS = 0, 1, 2
# Beyond this a chance is 0 or 1 in float32; it keeps exp finite.
_LARGEST_LOGIT = 30.0


@dataclass(frozen=True)
class Layout:
    """What a multi-hot vector holds, and in which order that is generated.

    A field is one element, which is there or not (a code, a label), or several of which one at most
    is there (the bins of a series). The elements of a field stand together.

    Attributes:
        widths: elements of each field.
        places: of each field in the order, from 0 on and never falling; fields with the same place
            are single elements, and independent given all before them.
    """

    widths: list[int]
    places: list[int]

    @property
    def n_elements(self) -> int:
        """The length of the vector."""
        return sum(self.widths)

    @property
    def field_of(self) -> Tensor:
        """The field of each element [elements]."""
        return torch.repeat_interleave(torch.tensor(self.widths))

    @property
    def place_of(self) -> Tensor:
        """The place of each element [elements]."""
        return torch.tensor(self.places)[self.field_of]


@dataclass(frozen=True)
class Batch:
    """Some patients, filled up at the end to the longest.

    Attributes:
        kind: STAY or HOURS of each visit, END after the last [patients, visits].
        stay: the number of its stay, from 0 [patients, visits].
        step: 0 for a stay, else the number of its step, from 1 [patients, visits].
        los: the bin of its stay's length, from 1; 0: not known [patients, visits].
        length: visits of each patient [patients].
        hot: the vectors of the visits of each kind, patient by patient [visits of kind, elements].
    """

    kind: Tensor
    stay: Tensor
    step: Tensor
    los: Tensor
    length: Tensor
    hot: dict[int, Tensor]


@dataclass(frozen=True)
class Visits:
    """All visits of some patients, one patient after another, in the order of time.

    Attributes:
        first: where the visits of each patient begin [patients + 1].
        kind, stay, step, los: as in ``Batch`` [visits].
        begin: where the elements of each visit begin [visits + 1].
        elements: those that are there.
        layouts: of the vectors of each kind.
    """

    first: Tensor
    kind: Tensor
    stay: Tensor
    step: Tensor
    los: Tensor
    begin: Tensor
    elements: Tensor
    layouts: dict[int, Layout]

    def counts(self, kind: int) -> tuple[Tensor, int]:
        """How often each element is there [elements], and the number of visits of a kind."""
        mine = torch.repeat_interleave(self.kind == kind, self.begin.diff())
        n_elements = self.layouts[kind].n_elements
        counts = torch.bincount(self.elements[mine], minlength=n_elements)
        return counts, int((self.kind == kind).sum())

    def batches(self, size: int, rng: torch.Generator | None = None) -> Iterator[Tensor]:
        """Patients of similar length, with up to ``size`` visits together, filling included.

        Args:
            size: of a batch; a longer patient is one by itself.
            rng: of their order; None: from the shortest to the longest.
        """
        length = self.first.diff()
        order = torch.randperm(len(length), generator=rng) if rng else torch.arange(len(length))
        order = order[torch.argsort(length[order], stable=True)]
        starts = [0]
        for i, n in enumerate(length[order].tolist()):
            if (i + 1 - starts[-1]) * n > size and i > starts[-1]:
                starts.append(i)
        sizes = torch.tensor([*starts, len(order)]).diff().tolist()
        found = order.split(sizes)
        shuffled = torch.randperm(len(found), generator=rng) if rng else torch.arange(len(found))
        return (found[i] for i in shuffled.tolist())

    def batch(self, patients: Tensor, device: torch.device) -> Batch:
        """The visits of some patients."""
        length = self.first.diff()[patients]
        visits = _ranges(self.first[patients], length)
        row = torch.arange(len(length)).repeat_interleave(length)
        column = visits - self.first[patients][row]
        shape = (len(patients), int(length.max()))

        def filled(facts: Tensor) -> Tensor:
            found = torch.zeros(shape, dtype=torch.int64)
            found[row, column] = facts[visits]
            return found.to(device)

        hot = {}
        for kind, layout in self.layouts.items():
            mine = visits[self.kind[visits] == kind]
            n = self.begin.diff()[mine]
            vectors = torch.zeros(len(mine), layout.n_elements, device=device)
            there = self.elements[_ranges(self.begin[mine], n)]
            vectors[torch.arange(len(n)).repeat_interleave(n).to(device), there.to(device)] = 1
            hot[kind] = vectors
        facts = {name: filled(getattr(self, name)) for name in ("kind", "stay", "step", "los")}
        return Batch(**facts, length=length.to(device), hot=hot)


def _ranges(start: Tensor, length: Tensor) -> Tensor:
    """Counting from each start on, as far as its length."""
    before = length.cumsum(0) - length
    return torch.arange(int(length.sum())) + torch.repeat_interleave(start - before, length)


@torch.no_grad()
def spread(weight: Tensor, counts: Tensor, n: int) -> None:
    """Draw weights of elements so that their sums over a vector have a variance of about 1.

    Usual weights suit vectors that are full; of these few elements are there.

    Args:
        weight: [outputs, elements].
        counts: how often each element is there [elements], in ``n`` vectors.
        n: vectors.
    """
    weight.normal_().mul_((max(n, 1) / counts.sum().clamp(min=1)) ** 0.5)


class FineModule(nn.Module):
    """The chances of a visit's elements, from the history and from the elements before them.

    Two masked linear layers. A hidden unit has a place: it sees the history and the elements of
    earlier places, and is seen by elements of its own and later places.

    Args:
        layout: of the vector.
        width: of the history.
        units: hidden units of each place; ``width`` more see the history alone.
    """

    mask_in: Tensor
    mask_out: Tensor
    field: Tensor

    def __init__(self, layout: Layout, width: int, units: int):
        super().__init__()
        self.layout = layout
        place, n_places = layout.place_of, layout.places[-1] + 1
        self.unit_place = torch.arange(1, n_places).repeat_interleave(units)
        self.unit_place = torch.cat([torch.zeros(width, dtype=torch.int64), self.unit_place])
        self.from_history = nn.Linear(width, len(self.unit_place))
        self.from_elements = nn.Linear(layout.n_elements, len(self.unit_place), bias=False)
        self.out = nn.Linear(len(self.unit_place), layout.n_elements)
        mask_in = (place[None] < self.unit_place[:, None]).float()
        mask_out = (self.unit_place[None] <= place[:, None]).float()
        self.register_buffer("mask_in", mask_in, persistent=False)
        self.register_buffer("mask_out", mask_out, persistent=False)
        self.register_buffer("field", layout.field_of, persistent=False)

    @torch.no_grad()
    def begin_at(self, counts: Tensor, n: int) -> None:
        """Start training from how often each element is there in ``n`` visits."""
        field = self.field.cpu()
        some = torch.zeros(len(self.layout.widths)).index_add(0, field, counts.float())
        odds = counts.float().clamp(min=1e-9) / (n - some + 0.5)[field]
        self.out.bias.copy_(odds.log())
        # A start near the marginal chances: what the layers add is small at first.
        self.out.weight.mul_(0.1)
        spread(self.from_elements.weight, counts, n)

    def forward(self, history: Tensor, hot: Tensor) -> Tensor:
        """Logits of the elements, against none of their field [visits, elements].

        Args:
            history: [visits, width].
            hot: the vectors themselves [visits, elements].
        """
        weight = self.from_elements.weight * self.mask_in
        hidden = F.relu(self.from_history(history) + F.linear(hot, weight))
        return F.linear(hidden, self.out.weight * self.mask_out, self.out.bias)

    def loss(self, history: Tensor, hot: Tensor) -> Tensor:
        """Negative log-likelihood of the vectors, all together."""
        logits = self(history, hot).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        some = logits.new_zeros(len(hot), len(self.layout.widths))
        some = some.index_add(1, self.field, logits.exp())
        return some.log1p().sum() - (logits * hot).sum()

    def chances(self, history: Tensor, hot: Tensor) -> Tensor:
        """Of each element, given those before it [visits, elements]."""
        odds = self(history, hot).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).exp()
        some = odds.new_ones(len(hot), len(self.layout.widths)).index_add(1, self.field, odds)
        return odds / some[:, self.field]

    @torch.no_grad()
    def sample(self, history: Tensor, rng: torch.Generator, given: Tensor | None = None) -> Tensor:
        """Draw vectors, place by place [visits, elements].

        Args:
            history: [visits, width].
            rng: on the device of the history.
            given: the elements of the first fields, which are not drawn then [visits, elements].
        """
        layout, n = self.layout, len(history)
        hot = history.new_zeros(n, layout.n_elements)
        n_given = 0 if given is None else given.shape[1]
        weight = self.from_elements.weight * self.mask_in
        ends = torch.bincount(layout.place_of).cumsum(0).tolist()
        units = torch.bincount(self.unit_place, minlength=len(ends)).cumsum(0).tolist()
        before = self.from_history(history)
        start = 0
        for end, seen in zip(ends, units, strict=True):
            mine = slice(start, end)
            if end <= n_given and given is not None:
                hot[:, mine] = given[:, mine]
            else:
                hidden = F.relu(before[:, :seen])
                logits = F.linear(hidden, self.out.weight[mine, :seen], self.out.bias[mine])
                one_field = bool(self.field[start] == self.field[end - 1])
                hot[:, mine] = _draw(logits, one_field, rng)
            before[:, seen:] += F.linear(hot[:, mine], weight[seen:, mine])
            start = end
        return hot


def _draw(logits: Tensor, one_field: bool, rng: torch.Generator) -> Tensor:
    """One element of a field or none, or each of single elements by itself, as 0 and 1."""
    if not one_field:
        chance = torch.rand(logits.shape, generator=rng, device=logits.device)
        return (chance < logits.sigmoid()).float()
    chances = F.pad(logits, (1, 0)).softmax(-1)
    found = torch.multinomial(chances, 1, generator=rng)[:, 0]
    return F.one_hot(found, chances.shape[1])[:, 1:].float()


class Block(nn.Module):
    """Causal attention and a layer of perceptrons, each after a norm, as in GPT-2."""

    def __init__(self, width: int, n_heads: int, dropout: float):
        super().__init__()
        self.n_heads = n_heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.together = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Some positions [patients, positions, width].

        Args:
            x: all positions, or the next one.
            past: keys and values before it [2, patients, heads, positions, head width].

        Returns:
            The positions, and keys and values as ``past`` with theirs.
        """
        shape = (*x.shape[:2], 3, self.n_heads, x.shape[2] // self.n_heads)
        parts = self.queries_keys_values(self.norms[0](x)).view(shape).permute(2, 0, 3, 1, 4)
        keys_values = parts[1:] if past is None else torch.cat([past, parts[1:]], dim=3)
        keys, values = keys_values
        y = F.scaled_dot_product_attention(parts[0], keys, values, is_causal=past is None)
        x = x + self.dropout(self.together(y.transpose(1, 2).reshape(x.shape)))
        y = self.narrow(F.gelu(self.wide(self.norms[1](x))))
        return x + self.dropout(y), keys_values


@dataclass(frozen=True)
class Sizes:
    """Of the networks; as in the settings of HALO.

    Attributes:
        n_stays: the most of a patient.
        n_steps: of a stay.
        width, n_layers, n_heads, units, dropout: as in the settings.
    """

    n_stays: int
    n_steps: int
    width: int
    n_layers: int
    n_heads: int
    units: int
    dropout: float


@dataclass
class Drawn:
    """Visits that were drawn at one position of the sequences.

    Attributes:
        kind: of all of them.
        patient: whose they are [visits].
        stay, step: as in ``Batch`` [visits].
        hot: [visits, elements].
    """

    kind: int
    patient: Tensor
    stay: Tensor
    step: Tensor
    hot: Tensor


class Network(nn.Module):
    """Both modules.

    Args:
        layouts: of the vectors of each kind of visit; fields of HOURS begin with one of ``n_steps``
            elements, the steps since the last visit.
        los: where the bins of the length of stay are in the vector of a stay.
        sizes: of the networks.
    """

    def __init__(self, layouts: dict[int, Layout], los: slice, sizes: Sizes):
        super().__init__()
        self.of_los, self.sizes, width = los, sizes, sizes.width
        self.embed, self.fine = nn.ModuleDict(), nn.ModuleDict()
        for kind, layout in layouts.items():
            self.embed[str(kind)] = nn.Linear(layout.n_elements, width)
            self.fine[str(kind)] = FineModule(layout, width, sizes.units)
        self.start = nn.Parameter(torch.randn(width))
        n_places = {"stay": sizes.n_stays, "step": sizes.n_steps + 1}
        n_places["los"] = los.stop - los.start + 1
        self.places = nn.ModuleDict()
        for name, n in n_places.items():
            # Less than what a visit holds, which sums to a variance of about 1.
            place = torch.randn(n, width) * 0.3
            self.places[name] = nn.Embedding.from_pretrained(place, freeze=False)
        block = (width, sizes.n_heads, sizes.dropout)
        self.blocks = nn.ModuleList(Block(*block) for _ in range(sizes.n_layers))
        self.norm, self.kind = nn.LayerNorm(width), nn.Linear(width, 3)
        self.dropout = nn.Dropout(sizes.dropout)

    def begin_at(self, visits: Visits) -> None:
        """Start training from the marginal chances of all elements."""
        for kind in visits.layouts:
            counts, n = visits.counts(kind)
            self.fine_of(kind).begin_at(counts, n)
            spread(self.embed[str(kind)].get_parameter("weight"), counts, n)

    def fine_of(self, kind: int) -> FineModule:
        """The fine module of a kind of visits."""
        found = self.fine[str(kind)]
        assert isinstance(found, FineModule)
        return found

    def _place(self, stay: Tensor, step: Tensor, los: Tensor) -> Tensor:
        """Where a visit is in its patient [..., width]."""
        at = {"stay": stay, "step": step, "los": los}
        return torch.stack([self.places[name](facts) for name, facts in at.items()]).sum(0)

    def history(self, batch: Batch) -> Tensor:
        """What was before each visit, and before the end [patients, visits + 1, width]."""
        x = self._place(batch.stay, batch.step, batch.los)
        for kind, hot in batch.hot.items():
            there = (batch.kind == kind).nonzero(as_tuple=True)
            x = x.index_put(there, self.embed[str(kind)](hot), accumulate=True)
        x = torch.cat([self.start.expand(len(x), 1, -1), x], dim=1)
        x = self.dropout(x)
        for block in self.blocks:
            x, _ = block(x)
        return self.norm(x)

    def losses(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of the kinds of visits, of stays and of hours [3]."""
        history = self.history(batch)
        target = F.pad(batch.kind, (0, 1))
        there = torch.arange(target.shape[1], device=target.device) <= batch.length[:, None]
        found = [F.cross_entropy(self.kind(history[there]), target[there], reduction="sum")]
        for kind, hot in batch.hot.items():
            before = history[:, :-1][batch.kind == kind]
            found.append(self.fine_of(kind).loss(before, hot))
        return torch.stack(found)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Shift the biases so that elements and kinds are as common as they are in the batches."""
        biases = {kind: self.fine_of(kind).out.bias for kind in (STAY, HOURS)}
        biases[END] = self.kind.bias
        expected, found = ({k: torch.zeros_like(b) for k, b in biases.items()} for _ in "12")
        for batch in batches:
            history = self.history(batch)
            target = F.pad(batch.kind, (0, 1))
            # The first visit is always a stay, and no chance.
            there = torch.arange(target.shape[1], device=target.device) <= batch.length[:, None]
            there[:, 0] = False
            expected[END] += self.kind(history[there]).softmax(-1).sum(0)
            found[END] += F.one_hot(target[there], len(biases)).sum(0)
            for kind, hot in batch.hot.items():
                before = history[:, :-1][batch.kind == kind]
                expected[kind] += self.fine_of(kind).chances(before, hot).sum(0)
                found[kind] += hot.sum(0)
        for kind, bias in biases.items():
            shift = ((found[kind] + 0.5) / (expected[kind] + 0.5)).log()
            bias.add_(shift * (found[kind] > 0))

    @torch.no_grad()
    def sample(self, n: int, n_given: int, rng: torch.Generator) -> Iterator[Drawn]:
        """Draw patients, visit by visit.

        Args:
            n: patients.
            n_given: elements at the beginning of a stay that are those of the first stay.
            rng: on the device of the network.
        """
        last = self.sizes.n_steps
        patient = torch.arange(n, device=self.start.device)
        stay, step = torch.full_like(patient, -1), torch.zeros_like(patient)
        los = torch.zeros_like(patient)
        given: Tensor | None = None
        x: Tensor = self.start.expand(n, 1, -1)
        pasts: list[Tensor | None] = [None] * len(self.blocks)
        while len(patient):
            for i, block in enumerate(self.blocks):
                x, pasts[i] = block(x, pasts[i])
            history = self.norm(x[:, 0])
            kind = self._draw_kind(history, stay, step, rng)
            on = kind != END
            kind, patient, stay, step, los, history = (
                facts[on] for facts in (kind, patient, stay, step, los, history)
            )
            pasts = [past[:, on] for past in pasts if past is not None]
            stay, step = stay + (kind == STAY), torch.where(kind == STAY, 0, step)
            x = torch.zeros_like(history)
            for which in (STAY, HOURS):
                mine = (kind == which).nonzero()[:, 0]
                if not len(mine):
                    continue
                whose, fine = patient[mine], self.fine_of(which)
                # All patients begin with a stay, together; it fixes what is given later on.
                known = given[whose] if which == STAY and given is not None else None
                hot = fine.sample(history[mine], rng, known)
                given = hot[:, :n_given] if given is None else given
                if which == STAY:
                    bins = F.pad(hot[:, self.of_los], (1, 0), value=0.5)
                    los[mine] = bins.argmax(-1)
                else:
                    step[mine] += hot[:, :last].argmax(-1) + 1
                yield Drawn(which, whose, stay[mine], step[mine], hot)
                x[mine] = self.embed[str(which)](hot)
            x = (x + self._place(stay, step.clamp(max=last), los))[:, None]

    def _draw_kind(
        self, history: Tensor, stay: Tensor, step: Tensor, rng: torch.Generator
    ) -> Tensor:
        """The kind of the next visit, of those that may follow."""
        logits = self.kind(history)
        begins = stay < 0
        logits[begins, END] = logits[begins, HOURS] = -torch.inf
        logits[stay == self.sizes.n_stays - 1, STAY] = -torch.inf
        logits[step >= self.sizes.n_steps, HOURS] = -torch.inf
        return torch.multinomial(logits.softmax(-1), 1, generator=rng)[:, 0]
