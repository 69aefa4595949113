"""What every pooling promises, as checks for ours and for those of other packages.

from attentive_probes.testing import check_pooling

def test_my_pooling():
check_pooling(MyPooling, {"num_queries": 4})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attentive_probes.layers.token_statistics import TokenStatistics
from attentive_probes.poolings import Pooling, build_pooling, find_pooling, pool_together, register_pooling
from attentive_probes.tokens import SequenceLayout

NEIGHBOURS = ("ep", "cait", "cae", "abmilp")  # each puts something else into a shared call of `attend`
KINDS = ("distribution", "partial", "gates")


@dataclass(frozen=True)
class Subject:
    """A pooling to be checked.

    Args:
        name: The name it is registered under.
        options: Its options.
        width: Token width D.
        grid: Rows and columns of the tokens; T is their product.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    width: int = 32
    grid: tuple[int, int] = (3, 4)

    @property
    def num_tokens(self) -> int:
        """Number of tokens T."""
        return self.grid[0] * self.grid[1]

    def fresh(self) -> Pooling:
        """A new instance in evaluation mode."""
        layout = SequenceLayout(self.num_tokens, self.grid, (self.grid[1],) * self.grid[0])  # each row an item
        return build_pooling(self.name, self.width, layout, dict(self.options)).eval()

    def build(self, seed: int = 0) -> Pooling:
        """An instance whose every parameter is away from zero and from tiny scales, so that every part matters."""
        torch.manual_seed(seed)
        pooling = self.fresh()
        for parameter in pooling.parameters():
            nn.init.normal_(parameter, mean=0.2 * (parameter.ndim == 1), std=parameter.shape[-1] ** -0.5)
        return pooling

    def tokens(self, batch: int = 2) -> Tensor:
        """Random tokens `(B, T, D)`."""
        return torch.randn(batch, self.num_tokens, self.width, generator=torch.Generator().manual_seed(1))


def check_pooling(
    pooling: str | type[Pooling],
    options: Mapping[str, Any] | None = None,
    *,
    width: int = 32,
    grid: tuple[int, int] = (3, 4),
) -> None:
    """Check all that a pooling promises (`CHECKS`): what sweeps, saved probes, listings and exports rely on.

    Args:
        pooling: Its class, or the name it is registered under. A class that is not is registered under its own name.
        options: Its options.
        width: Token width D to check it at.
        grid: Rows and columns of the tokens.

    Raises:
        AssertionError: If a promise is broken; the text says which.
        ValueError: If it cannot be registered, or does not fit width and grid.
    """
    if not isinstance(pooling, str):
        register_pooling(pooling.__name__, pooling)
        pooling = pooling.__name__
    for check in CHECKS.values():
        check(Subject(pooling, options or {}, width, grid))


def check_shapes(subject: Subject) -> None:
    """Features `(B, F)` and attention `(B, M, T)` of the kind that it names, for one image and for several."""
    for batch in (1, 3):
        pooling = subject.build()
        features, attention = pooling(subject.tokens(batch))
        _require(features.shape == (batch, pooling.num_features), f"features have the shape {tuple(features.shape)}")
        shape = tuple(attention.shape)
        _require(len(shape) == 3 and shape[::2] == (batch, subject.num_tokens), f"attention has the shape {shape}")
        _require(bool((attention >= 0).all()), "attention is negative somewhere")
        total, kind = attention.sum(-1), pooling.attention_kind
        _require(kind in KINDS, f"attention_kind is {kind!r}, none of {KINDS}")
        if kind == "distribution":
            _require(torch.allclose(total, torch.ones_like(total), atol=1e-5), "rows of the attention do not sum to 1")
        if kind == "partial":
            _require(bool((total < 1).all()), "rows of the attention, said to be partial, sum to 1")


def check_gradients(subject: Subject) -> None:
    """No parameter is dead, and the tokens get a gradient too."""
    pooling, tokens = subject.build(), subject.tokens().requires_grad_()
    pooling(tokens).features.square().sum().backward()
    for name, tensor in (("tokens", tokens), *pooling.named_parameters()):
        _require(tensor.grad is not None and bool(tensor.grad.abs().sum() > 0), f"no gradient reaches {name}")


def check_order(subject: Subject) -> None:
    """Where order does not matter, shuffled tokens give the same features and shuffled attention; else they do not."""
    pooling, tokens = subject.build(), subject.tokens()
    order = torch.randperm(subject.num_tokens, generator=torch.Generator().manual_seed(2))
    plain, shuffled = pooling(tokens), pooling(tokens[:, order])
    same = torch.allclose(plain.features, shuffled.features, atol=1e-5 if not pooling.order_matters else 1e-4)
    _require(same != pooling.order_matters, f"order_matters is {pooling.order_matters}, but the features say otherwise")
    if same:
        follows = torch.allclose(plain.attention[..., order], shuffled.attention, atol=1e-6)
        _require(follows, "the attention does not follow its tokens")


def check_half_precision(subject: Subject) -> None:
    """Half precision stays close to float32."""
    tokens = subject.tokens()
    expected = subject.build()(tokens).features
    for dtype in (torch.float16, torch.bfloat16):
        actual = subject.build().to(dtype)(tokens.to(dtype)).features
        _require(actual.dtype == dtype, f"features of {dtype} tokens are {actual.dtype}")
        _require(torch.allclose(actual.float(), expected, atol=0.05, rtol=0.05), f"{dtype} is far from float32")


def check_together(subject: Subject) -> None:
    """In one call with other poolings, as in a sweep, it gives what it gives alone, and so do they."""
    tokens = subject.tokens()
    neighbours = [Subject(name, {"num_queries": 4} if name == "ep" else {}, subject.width, subject.grid)
                  for name in NEIGHBOURS]  # fmt: skip
    poolings = [subject.build(), *(neighbour.build() for neighbour in neighbours), subject.build(seed=1)]
    for together, pooling in zip(pool_together(poolings, TokenStatistics(tokens)), poolings, strict=True):
        alone, name = pooling(tokens), type(pooling).__name__
        _require(torch.allclose(together.features, alone.features, atol=1e-6), f"{name} differs in company")
        _require(torch.allclose(together.attention, alone.attention, atol=1e-6), f"{name} attends otherwise in company")


def check_compiles(subject: Subject) -> None:
    """`torch.compile` sees one graph."""
    torch._dynamo.reset()  # poolings share one `forward`, and dynamo counts its variants
    pooling, tokens = subject.build(), subject.tokens()
    compiled = torch.compile(pooling, fullgraph=True, backend="aot_eager")
    _require(torch.allclose(compiled(tokens).features, pooling(tokens).features, atol=1e-6), "compiled, it differs")


def check_exports(subject: Subject) -> None:
    """`torch.export` takes any number of images."""
    pooling, tokens = subject.build(), subject.tokens()
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    exported = torch.export.export(pooling, (tokens,), dynamic_shapes=shapes).module()
    features = exported(tokens.repeat(3, 1, 1)).features[:2]
    _require(torch.allclose(features, pooling(tokens).features, atol=1e-6), "exported, it differs")


def check_describes_itself(subject: Subject) -> None:
    """Paper, docstring and costs are there for listings and cards; at the size of a ViT-B folding never costs more."""
    pooling_class = find_pooling(subject.name)
    _require(isinstance(getattr(pooling_class, "paper", None), str), "paper, a link or an empty string, is missing")
    _require(bool(pooling_class.__doc__), "the docstring is missing")
    with torch.device("meta"):
        textbook, folded = Subject(subject.name, subject.options, 768, (14, 14)).fresh().multiply_adds()
    _require(0 <= folded <= textbook, f"multiply_adds are {textbook} as written and {folded} folded")


def check_unknown_option(subject: Subject) -> None:
    """An option that it does not know is refused by name."""
    try:
        Subject(subject.name, {"no_such_option": 1}, subject.width, subject.grid).fresh()
    except ValueError as error:
        _require("no_such_option" in str(error), f"an unknown option is refused without its name: {error}")
    else:
        _require(False, "an unknown option is accepted")


def check_state(subject: Subject) -> None:
    """Its state dict is complete: another instance with it, after a pass in training mode, gives the same numbers."""
    tokens = subject.tokens()
    first, second = subject.build().train(), subject.build(seed=1)
    first(tokens)
    second.load_state_dict(first.state_dict())
    _require(torch.equal(first.eval()(tokens).features, second.eval()(tokens).features), "its state dict is incomplete")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "shapes": check_shapes,
    "gradients": check_gradients,
    "order": check_order,
    "half_precision": check_half_precision,
    "together": check_together,
    "compiles": check_compiles,
    "exports": check_exports,
    "describes_itself": check_describes_itself,
    "unknown_option": check_unknown_option,
    "state": check_state,
}


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise AssertionError(text)
