"""The data options of `vidgen train`: each file fits its class, and paths and captions are taken literally."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from vidgen_core.catalog import read_catalog
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.instantiate import instantiate

OPTIONS = read_catalog([])["data"]


def composed(*overrides: str) -> dict[str, Any]:
    return compose([*overrides, "model=tiny"], entry="train").config["data"]


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_has_the_keys_and_defaults_of_its_class(name: str) -> None:
    config = composed(f"data={name}")
    module, _, target = config.pop("_target_").rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), target)).parameters
    assert config == {key: parameter.default for key, parameter in parameters.items()}
    assert OPTIONS[name].summary
    assert all(key.comment for key_name, key in OPTIONS[name].keys.items() if key_name != "_target_")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_without_data_is_told_the_key(name: str) -> None:
    with pytest.raises(BadRequest, match=r"The data is not given: data\.(path|images)=\.\.\. (is|are) "):
        instantiate(composed(f"data={name}"))


@pytest.mark.parametrize("path", ["shards-{0000..0041}.tar", "it's a folder, (red): yes", "a=b.jsonl", "${x}"])
def test_a_path_is_taken_literally(path: str) -> None:
    assert composed("data=shards", f"data.path={path}")["path"] == path


@pytest.mark.parametrize("path", ["shards-{0000..0041}.tar", "clips, and more", "${x}", "./8"])
def test_paths_of_joint_data_are_literal_and_painted_ones_are_numbers(path: str) -> None:
    assert composed("data=joint", f"data.videos={path}")["videos"] == path
    assert composed("data=moving_shapes_joint", "data.videos=8", "data.images=null")["videos"] == 8
    with pytest.raises(BadRequest, match="data.videos takes a whole number"):
        composed("data=moving_shapes_joint", f"data.videos={path}")


@pytest.mark.parametrize(("written", "caption"), [("red, [a] dog: yes", "red, [a] dog: yes"), ("", ""), ("null", None)])
def test_a_caption_is_taken_literally_and_may_be_empty(written: str, caption: str | None) -> None:
    assert composed("data=folder", f"data.caption={written}")["caption"] == caption


@pytest.mark.parametrize(
    "override", ["data.crop=middle", "data.frames_per_scene=0", "data.size=0", "data.max_scenes=x", "data.parity=1"]
)
def test_a_value_that_is_not_allowed_is_refused(override: str) -> None:
    with pytest.raises(BadRequest, match=override.split("=")[0]):
        composed(override)
