"""What is wrapped, moved and called by accelerate: one module whose forward is a training step and its losses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vidgen_core.conditioning import TextTable, warn_cut
from vidgen_core.errors import BadRequest, VidgenError, nearest
from vidgen_core.models.tuned import DENOISER, is_over_time
from vidgen_core.moments import CORE
from vidgen_core.training.sharding import units_of

if TYPE_CHECKING:
    from vidgen_core.data.sample import Batch
    from vidgen_core.models.backbone import Backbone
    from vidgen_core.run import Run

PARTS = {
    "all": lambda name: True,
    "temporal": lambda name: "temp_convs" in name or "temp_attentions" in name,
    "spatial": lambda name: not is_over_time(name),
    "none": lambda name: False,
}
"""``trainer.trainable`` -> whether a parameter of the denoiser trains."""


class Trainables(dict[str, Tensor]):
    """Name -> parameter that trains. ``owners``: name -> the method that learns it, ``objective`` or ``core``."""

    def __init__(self, owned: Mapping[str, tuple[str, Tensor]]) -> None:
        super().__init__({name: parameter for name, (_, parameter) in owned.items()})
        self.owners = {name: owner for name, (owner, _) in owned.items()}


class Learner(nn.Module):
    """``forward(batch)`` -> named losses, scalars. All parameters that train are reachable from here.

    Args:
        run: The training's run, its backbone loaded and its methods attached.
        trainables: Name -> parameter; all others of the backbone are frozen.
    """

    def __init__(self, run: Run, trainables: Trainables) -> None:
        super().__init__()
        self.backbone = run.backbone
        # What methods or objectives train beside the backbone; a ParameterDict may not hold a name twice.
        inside = {id(parameter) for parameter in run.backbone.parameters()}
        outside = {name.replace(".", "/"): p for name, p in trainables.items() if id(p) not in inside}
        self.beside = nn.ParameterDict(outside)
        self.run = run
        self.trainables = trainables
        text_encoder = run.backbone.text_encoder
        trained = {id(parameter) for parameter in trainables.values()}
        self.text_trains = text_encoder is not None and any(id(p) in trained for p in text_encoder.parameters())
        self._texts = EncodedTexts(run)
        self._no_split_modules = units_of(self)  # what FSDP spreads by itself, if the launcher does not say
        paths = {id(parameter): path for path, parameter in self.named_parameters()}
        self._paths = {name: paths[id(parameter)] for name, parameter in trainables.items()}

    def renew(self) -> None:
        """Take the parameters that train as they are now: FSDP puts others in their places."""
        parameters = dict(self.named_parameters())
        self.trainables.update({name: parameters[path] for name, path in self._paths.items()})

    def train(self, mode: bool = True) -> Learner:
        """As every module, but what is frozen beside the denoiser stays as it is sampled: without its dropout."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    @property
    def frozen(self) -> list[nn.Module]:
        """What stands beside the denoiser and does not train."""
        parts = (self.backbone.vae, self.backbone.text_encoder)
        return [part for part in parts if part is not None and not any(p.requires_grad for p in part.parameters())]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        run = self.run
        run.batch = batch
        # A trained text encoder gives other embeddings at every step; a frozen one is asked once for each text.
        run.texts = TextTable(run.backbone.encode_text if self.text_trains else self._texts)
        try:
            prediction = run.moments.training_step(run=run, batch=batch)
            terms: dict[str, Tensor] = run.moments.losses(run=run, batch=batch, prediction=prediction)
        finally:
            run.batch = None
        if not terms:
            raise VidgenError("Nothing is minimised: no method and no objective supplies a loss.")
        if torch.is_grad_enabled() and not any(term.requires_grad for term in terms.values()):
            raise VidgenError(
                f"No loss depends on what trains: {', '.join(terms)} on '{next(iter(self.trainables))}' and the like. "
                "The `trainable` hook must name parameters that the network uses."
            )
        return terms


class EncodedTexts:
    """Embeddings of a frozen text encoder, the most recent ones kept on the CPU.

    Every text is encoded alone: an embedding's last bits depend on how many go with it, and what is missing from the
    cache depends on where a training was resumed.

    Args:
        limit: Texts kept.
    """

    def __init__(self, run: Run, limit: int = 2048) -> None:
        self._run = run
        self._limit = limit
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        for text in texts:
            if text not in self._kept:
                warn_cut(self._run, [text])
                self._kept[text] = self._run.backbone.encode_text([text])[0].cpu()
            self._kept.move_to_end(text)
        rows = torch.stack([self._kept[text] for text in texts])
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return rows.to(self._run.backbone.device)


def choose_trainables(run: Run) -> Trainables:
    """What the methods say trains, else the denoiser's parts of ``trainer.trainable``; everything else is frozen.

    Raises BadRequest where nothing would train.
    """
    backbone, wanted = run.backbone, run.config["trainer"]["trainable"]
    chosen = run.moments.collected("trainable", run=run, backbone=backbone)
    _check_names(chosen, run.model_parameters)
    if not chosen:
        if wanted not in PARTS:
            raise BadRequest(f"trainer.trainable={wanted} is not known.{nearest(wanted, PARTS)}")
        named = backbone.denoiser.named_parameters()
        chosen = {f"{DENOISER}{name}": (CORE, p) for name, p in named if PARTS[wanted](name)}
    if not chosen:
        raise BadRequest(f"trainer.trainable={wanted}: the model has no such parameters, so nothing would train.")
    backbone.requires_grad_(False)
    trainables = Trainables(chosen)
    for parameter in trainables.values():
        parameter.requires_grad_(True)
    return trainables


def parameters_of(backbone: Backbone) -> dict[int, str]:
    """``id`` of every parameter of the model -> its name."""
    parts = {"denoiser": backbone.denoiser, "vae": backbone.vae, "text_encoder": backbone.text_encoder}
    networks = {part: network for part, network in parts.items() if network is not None}
    return {id(p): f"{part}.{name}" for part, network in networks.items() for name, p in network.named_parameters()}


def _check_names(chosen: Mapping[str, tuple[str, Tensor]], own: Mapping[int, str]) -> None:
    """Raise VidgenError for a parameter of the model under another name, which hides that others could train it too."""
    for name, (owner, parameter) in chosen.items():
        path = own.get(id(parameter), name)
        if name != path:
            raise VidgenError(
                f"The method '{owner}' trains '{name}', which is the model's '{path}'. Give it that name, and mark its "
                f"trainable with @hookimpl(claims='{path.partition('.')[0]}')."
            )


@contextmanager
def dropout_of(networks: Sequence[nn.Module | None], probability: float | None) -> Iterator[None]:
    """Another dropout of the networks inside the context; None keeps their own."""
    there = [network for network in networks if network is not None and probability is not None]
    layers = [module for network in there for module in network.modules() if isinstance(module, nn.Dropout)]
    before = [layer.p for layer in layers]
    for layer in layers:
        layer.p = float(probability or 0.0)
    try:
        yield
    finally:
        for layer, p in zip(layers, before, strict=True):
            layer.p = p
