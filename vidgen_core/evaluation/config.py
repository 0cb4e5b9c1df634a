"""What `vidgen evaluate` was asked: an experiment or a folder of videos, the metrics, and keys for the videos to make.

``conf/evaluate.yaml`` and the experiment's file name the keys of an evaluation; every other key is one of
`vidgen generate` and is checked when the commands of the rows are composed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidgen_core.catalog import Key, Option
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.experiments import read_experiment
from vidgen_core.instantiate import instantiate
from vidgen_core.overrides import Override, from_python, is_literal, parse
from vidgen_core.plugin import catalog_of, conf_packages, discover
from vidgen_core.values import flatten, plain, set_values

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from vidgen_core.metrics.footage import Metric, SetMetric
    from vidgen_core.metrics.judge import Judge

Catalog = Mapping[str, Mapping[str, Option]]

SET_BY_THE_EVALUATION = {
    "prompt": "its stories are those of the experiment",
    "prompts_file": "its stories are those of the experiment",
    "seed": "write seeds=[...]",
    "method": "its rows say which",
    "resume": "finished videos are always taken as they are",
    "num_frames": "write scene_frames=...",
}
"""Keys of a request that an experiment sets by itself, and what to write instead."""


PARTS = {"judge": "none", "flow": "opencv"}
"""Groups that an evaluation takes one option of, for all metrics that ask for it -> the option if nobody chooses."""

CHOSEN = ("experiment", "metric", *PARTS)
"""Keys whose value is the name of a file, or a list of them."""

DRAWN = ("rows", "stories", "clips", "tunings", "trainings")
"""Keys of an experiment that are taken whole: what is compared, and on what."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a name, what it is called, and the command that makes its videos."""

    name: str
    label: str
    request: tuple[str, ...]


@dataclass(frozen=True)
class Instruments:
    """What an evaluation measures with."""

    metrics: Mapping[str, Metric]
    set_metrics: Mapping[str, SetMetric]
    judge: Judge | None

    @property
    def all(self) -> dict[str, Metric | SetMetric]:
        """Both kinds of metrics, those of single videos first."""
        return {**self.metrics, **self.set_metrics}


@dataclass(frozen=True)
class Evaluation:
    """A checked evaluation: plain data.

    Attributes:
        config: All keys of ``conf/evaluate.yaml``, of the experiment and of the chosen metrics and parts.
        experiment: Its name; empty where videos are scored that are there.
        metrics: Names of the chosen metrics.
        rows: What is compared.
        request: Keys of `vidgen generate` that the user wrote, as arguments.
    """

    config: dict[str, Any]
    experiment: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    request: tuple[str, ...] = ()

    def build_metrics(self) -> Instruments:
        """The metrics by name; one judge, one CLIP and so on serves all metrics that ask for it."""
        shared: dict[str, Any] = {}
        built: dict[str, Any] = {}
        for name in self.metrics:
            settings = dict(self.config["metrics"][name])
            for part, config in self._shared_parts(name).items():
                if part in settings:
                    if part not in shared:
                        shared[part] = instantiate(config)
                    settings[part] = shared[part]
            built[name] = instantiate(settings)
            for other in list(built)[:-1]:
                twice = set(built[name].columns) & set(built[other].columns)
                if twice:
                    raise BadRequest(
                        f"metric={other} and metric={name} both give the score '{min(twice)}'. Choose one of them."
                    )
        of_sets = {name: metric for name, metric in built.items() if hasattr(metric, "score_set")}
        of_videos = {name: metric for name, metric in built.items() if name not in of_sets}
        return Instruments(of_videos, of_sets, shared.get("judge"))

    def _shared_parts(self, name: str) -> dict[str, Mapping[str, Any]]:
        judge = self.config["judge"]
        if "judge" in self.config["metrics"][name] and not judge.get("_target_"):
            raise BadRequest(
                f"metric={name} asks a judge. Choose one: judge=openai with judge.model=..., or judge=transformers "
                "with judge.path=..."
            )
        return {
            **{part: self.config[part] for part in PARTS},
            "clip": {"_target_": "vidgen_core.metrics.clip.load", **self.config["clip"]},
            "chunks": {"_target_": "vidgen_core.metrics.chunks.Chunks", **self.config["chunks"]},
            "real": {"_target_": "vidgen_core.metrics.real.Real", **self.config["real"]},
        }


def compose_evaluation(arguments: Sequence[str], values: Mapping[str, Any] | None = None) -> Evaluation:
    """Compose and check an evaluation from ``key=value`` arguments and, from Python, from values.

    Raises BadRequest: one paragraph that names the key, metric, experiment or file, and the mend.
    """
    found = discover()
    catalog = catalog_of(found)
    asked = [*(_argument(argument) for argument in arguments), *from_python(values or {})]
    _refuse_twice(asked)
    chosen = {override.key: override for override in asked if override.key in CHOSEN}
    experiment = str(chosen["experiment"].value or "") if "experiment" in chosen else ""
    content = read_experiment(experiment, "evaluate") if experiment else {}
    metrics = _metrics(chosen.get("metric"), content.get("metric") or [], catalog)
    parts = {
        part: _option(part, str(chosen[part].value if part in chosen else content.get(part) or default), catalog)
        for part, default in PARTS.items()
    }
    documented = _documented(catalog, experiment, metrics, parts)
    tree = _tree(content, metrics, parts, conf_packages(found))
    own, request = _split(asked, tree, documented, catalog)
    given = set_values(tree, own, tuple(chosen), (), (), documented)
    config = plain(tree, {key: value for key, value in given.items() if is_literal(key)})
    config |= {"experiment": experiment or None, "metric": list(metrics)}
    if not experiment:
        _check_folder(config, request)
        return Evaluation(config, "", metrics)
    if config["videos"]:
        raise BadRequest("experiment= makes its videos, and videos= names some that are there. Leave one out.")
    return Evaluation(config, experiment, metrics, _rows(config), tuple(request))


def _argument(argument: str) -> Override:
    # Paths of an evaluation are taken as they stand, like those of a request; which keys hold one is known later, and
    # whatever Hydra's grammar cannot read is text.
    try:
        return parse(argument)
    except BadRequest:
        key, equals, raw = argument.partition("=")
        if not equals or not key.strip() or key[0] in "+~-" or raw.lstrip().startswith(("[", "{")):
            raise
        return Override(key.strip(), raw, raw)


def _refuse_twice(asked: Sequence[Override]) -> None:
    keys = [override.key for override in asked]
    for key in keys:
        if keys.count(key) > 1:
            raise BadRequest(f"{key}= was written {keys.count(key)} times. Write it once.")


def _metrics(override: Override | None, preset: Sequence[str], catalog: Catalog) -> tuple[str, ...]:
    value = preset if override is None else override.value
    names = [value] if isinstance(value, str) else list(value or [])
    for name in names:
        _option("metric", str(name), catalog)
        if not catalog["metric"][name].text.startswith(f"# @package metrics.{name}\n"):
            raise BadRequest(f"conf/metric/{name}.yaml must begin with the line '# @package metrics.{name}'.")
    return tuple(dict.fromkeys(names))


def _option(group: str, name: str, catalog: Catalog) -> str:
    options = catalog.get(group, {})
    if name not in options:
        hint = nearest(name, options)
        names = "" if "There are" in hint else f" There are: {', '.join(sorted(options))}."
        raise BadRequest(f"There is no {group} '{name}'.{hint}{names}")
    return name


def _documented(catalog: Catalog, experiment: str, metrics: Sequence[str], parts: Mapping[str, str]) -> dict[str, Key]:
    keys = dict(catalog[""]["evaluate"].keys)
    if experiment:
        keys |= catalog["experiment"][experiment].keys
    for name in metrics:
        keys |= {f"metrics.{name}.{key}": entry for key, entry in catalog["metric"][name].keys.items()}
    for part, name in parts.items():
        keys |= {f"{part}.{key}": entry for key, entry in catalog[part][name].keys.items()}
    return keys


def _tree(
    content: Mapping[str, Any], metrics: Sequence[str], parts: Mapping[str, str], packages: Sequence[str]
) -> DictConfig:
    from omegaconf import OmegaConf

    from vidgen_core.search_path import compose_groups

    groups = [f"{part}={name}" for part, name in parts.items()]
    tree = compose_groups([f"metric=[{','.join(metrics)}]", *groups], packages, "evaluate")
    OmegaConf.set_struct(tree, False)
    for name, value in content.items():
        if name not in PARTS:
            OmegaConf.update(tree, name, value, merge=name not in DRAWN, force_add=True)
    for part in PARTS:
        if part not in tree or tree[part] is None:
            OmegaConf.update(tree, part, {}, force_add=True)
    return tree


def _split(
    asked: Sequence[Override], tree: DictConfig, documented: Mapping[str, Key], catalog: Catalog
) -> tuple[list[Override], list[str]]:
    """The keys of the evaluation, paths as they were written, and the arguments that go on to every row."""
    from omegaconf import OmegaConf

    valid = flatten(OmegaConf.to_container(tree))
    config = catalog[""]["config"].keys
    groups = {group for group in catalog if group and group not in CHOSEN}
    methods = catalog.get("method", {})
    own: list[Override] = []
    request: list[str] = []
    for override in asked:
        key, first = override.key, override.key.partition(".")[0]
        if key in CHOSEN:
            continue
        if key in valid or (first in ("metrics", *PARTS) and first != key):
            path = key in documented and documented[key].comment.startswith("path")
            own.append(Override(key, None if override.raw in ("", "null") else override.raw, override.raw))
            if not path:
                own[-1] = override
        elif key in SET_BY_THE_EVALUATION:
            raise BadRequest(f"{override}: an experiment sets {key}: {SET_BY_THE_EVALUATION[key]}.")
        elif key in config or first in groups or first in methods or first in ("methods", "owner", "weights"):
            request.append(f"{key}={override.raw}")
        else:
            raise BadRequest(f"There is no key '{key}'.{nearest(key, [*valid, *config])}")
    return own, request


def _check_folder(config: Mapping[str, Any], request: Sequence[str]) -> None:
    if not config["videos"]:
        raise BadRequest(
            "Say what to evaluate: experiment=<name>, or videos=<folder> with captions=<file> and metric=[...]."
        )
    if request:
        raise BadRequest(f"{request[0]}: videos= are scored as they are; keys of generation belong to experiment=.")
    if not config["metric"]:
        raise BadRequest("No metric was chosen. Write metric=[...]; `vidgen list` names them.")


def _rows(config: Mapping[str, Any]) -> tuple[Row, ...]:
    known: Mapping[str, Mapping[str, Any]] = config["rows"]
    wanted = config["compare"] if isinstance(config["compare"], list) else [config["compare"]]
    for name in wanted:
        if name not in known:
            raise BadRequest(f"compare={name}: there is no such row.{nearest(str(name), known)}")
    if not wanted:
        raise BadRequest(f"compare=[] compares nothing. There are: {', '.join(known)}.")
    common = list(map(str, config["request"]))
    return tuple(
        Row(name, known[name]["label"], (*common, *map(str, known[name]["request"]))) for name in dict.fromkeys(wanted)
    )
