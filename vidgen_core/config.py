"""From what the user wrote to one resolved, plain configuration; nothing heavy is imported on the way.

Hydra composes the chosen group options; the single values are then set one by one, each checked against the key
it names, so that every mistake is one sentence. Prompts and paths never pass through Hydra or OmegaConf.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidgen_core.card import READS, Plugin, check_pair, warning_of
from vidgen_core.catalog import Key, Option
from vidgen_core.errors import BadRequest, Conflict, nearest
from vidgen_core.overrides import FILES, PROMPTS, Override, from_python, is_literal, parse, spelled_out
from vidgen_core.plugin import Found, catalog_of, conf_packages, discover, method_plugin
from vidgen_core.prompts import looks_like_a_list, read_videos
from vidgen_core.recorded_code import refuse_other_code
from vidgen_core.request import Request, VideoRequest, resolve_defaults
from vidgen_core.tuned_run import SIZES, read_tuned, take_clip, take_over
from vidgen_core.unpackaged import apart, files_of, hashes_of, joined, of_file, put_options, refuse_unchosen
from vidgen_core.values import check_value, flatten, plain, put, set_values

Catalog = dict[str, dict[str, Option]]

GROUPS = ("model", "scheduler", "noise", "placement", "output")
"""Groups of which one option is chosen; ``method`` takes several, in their order of composition."""

ENTRY_GROUPS = {"config": GROUPS, "train": (*GROUPS, "data", "objective", "trainer")}
"""The file that a verb begins with -> its groups; every other file holds all keys of ``config`` too."""

CORE_DEFAULTS = {
    "num_frames": 16,
    "height": 256,
    "width": 256,
    "fps": 8,
    "guidance_scale": 7.5,
    "num_inference_steps": 25,
}
"""Request values where neither the user, a method nor the model says otherwise."""

RECORD = ("method", "choices", "given", "videos")
"""What a configuration also records of its making, so that it can be repeated; no key of these can be set."""


@dataclass(frozen=True)
class Composed:
    """A composed request: plain data, ready to run, to print or to write down."""

    config: dict[str, Any]
    request: Request
    found: dict[str, Found]
    origins: dict[str, str]  # request key -> who gave its value: you, model, method ..., core
    notes: tuple[str, ...] = ()  # what the user should be told before the run

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """The configuration of each chosen method (with its ``_target_``), in the order of ``method=[...]``."""
        return {name: self.config["methods"][name] for name in self.config["method"]}


def compose(overrides: Sequence[str], values: Mapping[str, Any] | None = None, entry: str = "config") -> Composed:
    """Compose and check a request from ``key=value`` arguments and, from Python, from values.

    Args:
        entry: The file to begin with, one of ``ENTRY_GROUPS``.

    Raises:
        BadRequest: one paragraph that names the key, value, method, model or file, and the mend.
    """
    values, objects = apart(values or {})
    asked = [*spelled_out(map(parse, overrides)), *from_python(values)]
    files = [of_file(path) for path in files_of(asked)]
    found = joined(discover(), [*files, *objects])
    catalog = catalog_of(found)
    methods = _methods(asked, found)
    refuse_unchosen(files, methods)
    asked = [_weights_of_one(override, methods) for override in asked]
    _refuse_twice(asked)
    tuned = read_tuned(asked) if any("tuned" in plugin.reads for plugin in methods.values()) else {}
    refuse_other_code({"model": tuned.get("model")}, catalog)
    choices = _choices(asked, catalog, methods, entry, tuned)
    from vidgen_core.search_path import compose_groups

    groups = [f"{group}={option}" for group, option in choices.items()]
    groups += [f"method=[{','.join(name for name in methods if found[name].build is None)}]"]
    tree = compose_groups(groups, conf_packages(found), entry)
    put_options(tree, found, list(methods))
    _take_method_options(tree, list(methods))
    documented = _documented(catalog, choices, list(methods), entry)
    if tuned:
        take_over(tree, tuned, list(methods), "model" not in {override.key for override in asked}, documented)
    given = set_values(tree, asked, (*choices, "method", FILES), _method_names(found), list(methods), documented)
    config = plain(tree, {key: value for key, value in given.items() if is_literal(key)})
    config |= {"method": list(methods), "choices": choices, "given": sorted(given), FILES: hashes_of(files)}
    _take_method_path(config, given)
    _take_weights_as_path(config)
    if tuned:
        take_clip(config, tuned, given)
    if "trainer" in config:
        _take_trainer_defaults(config, given, documented)
    _check_families(config, methods, catalog)
    user = {key: config[key] for key in given if key in config}
    return _complete(config, user, found, documented, tuned=tuned)


def recompose(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> Composed:
    """A recorded configuration once more, with some values or groups changed; later defaults play no part."""
    from omegaconf import OmegaConf

    asked = list(spelled_out(map(parse, overrides)))
    _refuse_twice(asked)
    recorded = config.get(FILES) or {}
    files = [of_file(path, recorded.values()) for path in files_of(asked) or recorded]
    found = joined(discover(), files)
    record: dict[str, Any] = {key: config[key] for key in RECORD} | {FILES: hashes_of(files)}
    for name in record["method"]:
        if name not in found:
            raise BadRequest(
                f"The method '{name}' ({config['methods'][name]['_target_']}) is not installed. Install its package; "
                "if it was an object of a Python program, run that program again."
            )
        method_plugin(name, found)
    packaged = {name: config["methods"][name] for name in record["method"] if found[name].build is None}
    refuse_other_code({**config, "methods": packaged}, catalog_of(found))
    groups: dict[str, Any] = {}
    for override in asked:
        if override.key in ("method", "model"):
            raise BadRequest(f"{override}: a replay keeps its {override.key}. Write a new command with {override}.")
        if override.key in GROUPS:
            other = compose([f"{override.key}={override.raw}"]).config
            groups[override.key] = other[override.key]
            record["choices"] = {**record["choices"], override.key: other["choices"][override.key]}
    values = {k: v for k, v in {**config, **groups}.items() if k not in record}
    # What was recorded is resolved: a text or list that holds "${" is meant literally.
    literals = {k: v for k, v in flatten(values).items() if "${" in str(v) and not isinstance(v, Mapping)}
    tree = OmegaConf.create(put(values, dict.fromkeys(literals)))
    documented = _documented(catalog_of(found), record["choices"], record["method"])
    given = set_values(tree, asked, (*GROUPS, FILES), _method_names(found), record["method"], documented)
    literals = {k: v for k, v in literals.items() if k not in given}
    changed = plain(tree, literals | {k: v for k, v in given.items() if is_literal(k)})
    if {*PROMPTS, "prompts_file"} & set(given):
        del record["videos"]
    if "prompt" in given:
        changed["prompts_file"] = None
    elif "prompts_file" in given:
        changed["prompt"] = None
    record["given"] = sorted({*record["given"], *given})
    return _complete(changed | record, {key: changed[key] for key in CORE_DEFAULTS}, found, documented, "recorded")


# ---------------------------------------------------------------------------------------- groups and methods


def _methods(asked: Sequence[Override], found: dict[str, Found]) -> dict[str, Plugin]:
    written = [override for override in asked if override.key == "method"]
    if len(written) > 1:
        each = dict.fromkeys(name for o in written for name in o.raw.strip("[]").split(","))
        raise BadRequest(f"method= was written {len(written)} times. Write one list: method=[{','.join(each)}].")
    value = written[0].value if written else []
    names = value if isinstance(value, list) else [] if value is None else [value]
    methods: dict[str, Plugin] = {}
    for name in map(str, names):
        if name in methods:
            raise BadRequest(f"The method '{name}' was chosen twice. Name it once in method=[...].")
        card = method_plugin(name, found)
        for other in methods:
            check_pair(other, methods[other], name, card)
        methods[name] = card
    return methods


def _weights_of_one(override: Override, methods: Mapping[str, Plugin]) -> Override:
    """``weights=path`` as ``weights.<method>=path``, for the one chosen method that reads weights of its own."""
    if override.key != "weights" or not isinstance(override.value, str):
        return override
    reading = [name for name, plugin in methods.items() if "weights" in plugin.reads]
    if len(reading) != 1:
        who = f"{' and '.join(reading)} all read" if reading else "no chosen method reads"
        raise BadRequest(f"{override}: {who} weights of their own. Write weights.<method>=path.")
    return Override(f"weights.{reading[0]}", override.value, override.raw)


def _refuse_twice(asked: Sequence[Override]) -> None:
    keys = [override.key.removeprefix("methods.") for override in asked]
    for key in keys:
        if keys.count(key) > 1:
            raise BadRequest(f"{key}= was written {keys.count(key)} times. Write it once.")


def _method_names(found: Mapping[str, Found]) -> list[str]:
    """Installed methods, broken plugins included: a key of one is to be told apart from an unknown key."""
    return [name for name, entry in found.items() if entry.plugin is None or entry.plugin.is_method]


def _choices(
    asked: Sequence[Override],
    catalog: Catalog,
    methods: Mapping[str, Plugin],
    entry: str,
    tuned: Mapping[str, Any],
) -> dict[str, str]:
    choices = {group: _default_option(catalog, group, entry) for group in ENTRY_GROUPS[entry]}
    choices["model"] = _default_model(choices["model"], catalog, methods)
    if tuned and tuned["choices"]["model"] in catalog["model"]:
        choices["model"] = tuned["choices"]["model"]
    for override in asked:
        if override.key in choices and str(override.value) not in catalog[override.key]:
            name, options = str(override.value), catalog[override.key]
            hint = nearest(name, options)
            names = "" if "There are" in hint else f" There are: {', '.join(sorted(options))}."
            raise BadRequest(f"There is no {override.key} '{name}'.{hint}{names}")
    written = {override.key: str(override.value) for override in asked if override.key in choices}
    choices["model"] = written.get("model", choices["model"])
    # Of the groups after the model: the user's, else that of the last method which has one, else the model's.
    advisers = [catalog["model"][choices["model"]], *(catalog["method"][name] for name in methods)]
    for group in ENTRY_GROUPS[entry][1:]:
        wanted = [adviser.value(f"group_defaults.{group}") for adviser in advisers]
        objectives = {wish: name for name, wish in zip(methods, wanted[1:], strict=True) if wish}
        if group == "objective" and len(objectives) > 1 and group not in written:
            (one, first), (other, second) = list(objectives.items())[:2]
            raise Conflict(
                f"The methods '{first}' and '{second}' train by different objectives, and a training has one. Leave "
                f"one of them out, or pick: objective={one} or objective={other}.",
                over="training_step",
            )
        choices[group] = next((option for option in reversed(wanted) if option), choices[group])
    return choices | written


def _default_option(catalog: Catalog, group: str, entry: str) -> str:
    for file in (entry, "config"):
        for line in catalog[""][file].text.splitlines():
            if line.strip().startswith(f"- {group}:"):
                return line.partition(":")[2].strip()
    raise LookupError(f"conf/{entry}.yaml has no default for the group '{group}'")


def _default_model(preferred: str, catalog: Catalog, methods: Mapping[str, Plugin]) -> str:
    """A model that all chosen methods accept: a method's default, the last first, or one that needs no download."""
    models = catalog["model"]
    defaults = [catalog["method"][name].value("group_defaults.model") for name in reversed(list(methods))]
    embedded = [name for name, option in models.items() if option.value("example_prompt")]
    for name in [*defaults, preferred, *embedded]:
        if name in models and all(models[name].value("family") in plugin.families for plugin in methods.values()):
            return name
    return preferred


def _check_reads(config: Mapping[str, Any], found: Mapping[str, Found]) -> None:
    """Refuse an input that no chosen method reads, rather than ignore it."""
    chosen = set(config["method"])
    inputs = {key: chosen for key in READS if key != "weights" and config[key] is not None}
    inputs |= {f"weights.{name}": {name} & chosen for name in config["weights"]}
    for key, candidates in inputs.items():
        read = key.partition(".")[0]
        reading = {name for name, entry in found.items() if entry.plugin is not None and read in entry.plugin.reads}
        if not candidates & reading:
            mend = f" Methods that read {read}=: {', '.join(sorted(reading))}." if reading else ""
            raise BadRequest(f"{key}= is given, but no chosen method reads it. Leave it out.{mend}")


def _is_shown_otherwise(config: Mapping[str, Any], found: Mapping[str, Found]) -> bool:
    """Whether a key that a chosen method reads in the place of a prompt is given."""
    cards = [card for name in config["method"] if (card := found[name].plugin) is not None]
    values = flatten({**config, **config["methods"]})
    keys = [key for card in cards for key in card.shown_by]
    return any(values.get(key) for key in keys)


def _take_method_options(tree: Any, methods: Sequence[str]) -> None:
    """Options of the chosen methods that suit the model; a tuned run's and the user's are set later."""
    options = tree["model"].get("method_options") or {}
    for name in methods:
        for key, value in (options.get(name) or {}).items():
            tree["methods"][name][key] = value


def _take_method_path(config: dict[str, Any], given: Mapping[str, Any]) -> None:
    """The folder of the model that was tuned for a chosen method, where the user names none; the last of them wins."""
    paths = config["model"].get("method_paths") or {}
    fitting = [paths[name] for name in config["method"] if name in paths]
    if fitting and "model.path" not in given:
        config["model"]["path"] = fitting[-1]


def _take_weights_as_path(config: dict[str, Any]) -> None:
    """A model that is a method's published weights may be named by ``weights=`` as well as by ``model.path=``."""
    method = config["model"].get("weights_of")
    if method in config["weights"] and config["model"]["path"] is None:
        config["model"]["path"] = config["weights"].pop(method)


def _take_trainer_defaults(config: dict[str, Any], given: Mapping[str, Any], documented: Mapping[str, Key]) -> None:
    """How methods train where the user does not say: as suits the model, else as the method says; the last wins."""
    trainer = config["trainer"]
    for name in config["method"]:
        for_model = (config["model"].get("trainer_defaults") or {}).get(name) or {}
        for key, value in {**(config["methods"][name].get("trainer_defaults") or {}), **for_model}.items():
            full = f"trainer.{key}"
            if key not in trainer:
                raise BadRequest(f"The method '{name}' has a default for '{full}'.{nearest(key, trainer)}")
            if isinstance(value, dict) and isinstance(trainer[key], dict):
                trainer[key] = {**value, **trainer[key]}  # keys of its own, of which the user may have set some
            elif full not in given:
                trainer[key] = check_value(Override(full, value, str(value)), trainer[key], documented.get(full))


def _check_families(config: Mapping[str, Any], methods: Mapping[str, Plugin], catalog: Catalog) -> None:
    family, model = config["model"].get("family"), config["choices"]["model"]
    for name, plugin in methods.items():
        if family not in plugin.families:
            fitting = sorted(n for n, option in catalog["model"].items() if option.value("family") in plugin.families)
            models = f" Models of it: {', '.join(fitting)}." if fitting else ""
            raise BadRequest(
                f"The method '{name}' runs on the model family {' or '.join(plugin.families)}, but model={model} is "
                f"of the family '{family}'.{models}"
            )


def _documented(
    catalog: Catalog, choices: Mapping[str, str], methods: Sequence[str], entry: str = "config"
) -> dict[str, Key]:
    """Dotted key of the composed tree -> how its YAML file documents it."""
    keys = catalog[""]["config"].keys | catalog[""][entry].keys
    chosen = [(group, catalog[group][name]) for group, name in choices.items() if name in catalog.get(group, {})]
    chosen += [(f"methods.{name}", catalog["method"][name]) for name in methods]
    for prefix, option in chosen:
        keys |= {f"{prefix}.{key}": entry for key, entry in option.keys.items()}
    return keys


# ------------------------------------------------------------------------------------------------ request


def _complete(
    config: dict[str, Any],
    user: Mapping[str, Any],
    found: dict[str, Found],
    documented: Mapping[str, Key],
    origin: str = "you",
    tuned: Mapping[str, Any] | None = None,
) -> Composed:
    """Fill in the defaults and the videos, and check what can be checked without a model."""
    _check_reads(config, found)
    notes = [warning_of(name, card) for name in config["method"] if (card := found[name].plugin) is not None]
    notes = [note for note in notes if note]
    defaults = {name: config["methods"][name].get("request_defaults") or {} for name in config["method"]}
    model = config["model"]
    facts = {"defaults": model.get("request_defaults"), "method_defaults": model.get("method_defaults")}
    taken = {key: value for key, value in (tuned or {}).items() if key in SIZES}
    resolved = resolve_defaults(user, defaults, facts, CORE_DEFAULTS, taken)
    for key, (value, _) in resolved.items():
        config[key] = check_value(Override(key, value, str(value)), CORE_DEFAULTS[key], documented[key])
    origins = {key: origin if who == "you" else who for key, (_, who) in resolved.items()}
    examples = model.get("method_prompts") or {}
    example = next((examples[name] for name in reversed(config["method"]) if name in examples), None)
    example = example or model.get("example_prompt")
    promptless = config["prompt"] is None and config["prompts_file"] is None
    textless = promptless and _is_shown_otherwise(config, found)
    if promptless and not textless and example:
        config["prompt"] = example
        notes.append(
            f"No prompt was given; this is the example of model={config['choices']['model']}: {config['prompt']}"
        )
    if looks_like_a_list(config["prompt"]):
        notes.append(
            'The prompt looks like a list but is no JSON, so it is taken as one text. Scenes: \'["one","two"]\'.'
        )
    if "videos" in config:
        videos = tuple(
            VideoRequest(tuple(v["prompts"]), tuple(v["negative_prompts"]), v["index"], v["name"])
            for v in config["videos"]
        )
    elif textless:
        videos = read_videos({**config, "prompt": ""})
    else:
        videos = read_videos(config)
    written = ("prompts", "negative_prompts", "index", "name")
    config["videos"] = [
        {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(video).items() if k in written}
        for video in videos
    ]
    numbers = {key: config[key] for key in CORE_DEFAULTS}
    request = Request(
        videos=videos,
        seed=config["seed"],
        image=config["image"],
        video=config["video"],
        given=frozenset(config["given"]),
        textless=textless,
        **numbers,
    )
    if videos:
        request.validate(size_multiple=1)  # divisibility is the model's to say
    if config["batch_size"] < 1:
        raise BadRequest(f"batch_size={config['batch_size']} must be at least 1.")
    return Composed(config, request, found, origins, tuple(notes))
