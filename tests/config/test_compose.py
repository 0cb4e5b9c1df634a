"""A configuration is composed from what was written, in order, with the origin of every default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vidgen_core.catalog import read_catalog
from vidgen_core.config import CORE_DEFAULTS, GROUPS, compose, recompose
from vidgen_core.errors import BadRequest
from vidgen_core.plugin import conf_packages, discover
from vidgen_core.provenance import write_yaml

CARD = """
from vidgen_core import Plugin
plugin = Plugin(name="{name}", summary="a test", package=__name__, families={families})
"""
CATALOG = read_catalog(conf_packages(discover()))
PROMPT = "prompt=x"


def test_no_method_is_the_default() -> None:
    composed = compose([PROMPT])
    assert composed.methods == {}
    assert composed.config["method"] == []
    assert composed.request.seed == 0


@pytest.mark.parametrize("written", ["method=talc", "method=[talc]"])
def test_one_method(written: str) -> None:
    composed = compose([written, PROMPT])
    assert list(composed.methods) == ["talc"]
    assert composed.methods["talc"]["_target_"] == "vidgen_talc.method.build"


def test_short_form_is_an_option_of_the_method() -> None:
    short = compose(["method=talc", "talc.scene_frames=[16,24]", PROMPT])
    full = compose(["method=talc", "methods.talc.scene_frames=[16,24]", PROMPT])
    assert short.config == full.config
    assert short.methods["talc"]["scene_frames"] == [16, 24]


@pytest.mark.parametrize("model", ["modelscope", "tf_t2v"])
def test_null_is_a_value_where_the_comment_says_what_it_is(model: str) -> None:
    assert compose([f"model={model}", PROMPT]).config["model"]["variant"] == "fp16"
    assert compose([f"model={model}", "model.variant=null", PROMPT]).config["model"]["variant"] is None


def test_a_mapping_is_a_value_of_each_of_its_keys() -> None:
    mapping = compose(["method=talc", "talc={scene_frames: [16,24], mode: merged}", PROMPT])
    each = compose(["method=talc", "talc.scene_frames=[16,24]", "talc.mode=merged", PROMPT])
    assert mapping.config == each.config


def test_list_order_is_composition_order(install_plugin) -> None:
    for name in ("zeta", "alpha"):
        card = CARD.format(name=name, families=("unet3d",))
        yaml = f"# @package methods.{name}\n_target_: third_party_{name}.build\nknob: 1 # int\n"
        install_plugin(name, card, {f"conf/method/{name}.yaml": yaml})
    assert list(compose(["method=[zeta,talc,alpha]", PROMPT]).methods) == ["zeta", "talc", "alpha"]
    assert compose(["method=[alpha,zeta]", "zeta.knob=3", PROMPT]).methods["zeta"]["knob"] == 3


def test_defaults_come_from_user_then_model_for_method_then_method_then_model_then_core(install_plugin) -> None:
    card = CARD.format(name="beta", families=("unet3d",))
    method = "# @package methods.beta\n_target_: third_party_beta.build\nrequest_defaults:\n  fps: 5\n  height: 40\n"
    model = (
        "_target_: third_party_beta.build\nfamily: unet3d\nrequest_defaults:\n  fps: 6\n  width: 48\n"
        "  height: 48\nmethod_defaults:\n  beta:\n    height: 56\n"
    )
    install_plugin("beta", card, {"conf/method/beta.yaml": method, "conf/model/small.yaml": model})
    composed = compose(["method=beta", "model=small", "num_frames=3", PROMPT])
    assert composed.origins == {
        "num_frames": "you",
        "height": "model for beta",
        "fps": "method beta",
        "width": "model",
        "guidance_scale": "core",
        "num_inference_steps": "core",
    }
    values = {key: composed.config[key] for key in CORE_DEFAULTS}
    assert values == {**CORE_DEFAULTS, "num_frames": 3, "height": 56, "fps": 5, "width": 48}


def test_a_model_of_larger_images_is_tuned_on_as_large_ones() -> None:
    assert compose(["method=tune_a_video", "model=sd21", PROMPT]).request.height == 768
    assert compose(["method=tune_a_video", "model=sd15", PROMPT]).request.height == 512


def test_default_model_is_one_that_the_methods_accept(install_plugin) -> None:
    card = CARD.format(name="gamma", families=("other",))
    files = {
        "conf/method/gamma.yaml": "# @package methods.gamma\n_target_: third_party_gamma.build\n",
        "conf/model/other_small.yaml": "_target_: third_party_gamma.build\nfamily: other\nexample_prompt: a cat\n",
    }
    install_plugin("gamma", card, files)
    assert compose(["method=gamma"]).config["choices"]["model"] == "other_small"
    assert compose([]).config["choices"]["model"] == "moving_shapes"
    with pytest.raises(BadRequest, match=r"family other, but model=tiny is of the family 'unet3d'.*other_small"):
        compose(["method=gamma", "model=tiny", PROMPT])


def test_default_model_is_that_of_a_method_unless_a_run_was_tuned_on_another(tmp_path: Path) -> None:
    assert compose(["method=depth", PROMPT]).config["choices"]["model"] == "moving_shapes_depth"
    assert compose(["method=depth", "model=tiny_depth", PROMPT]).config["choices"]["model"] == "tiny_depth"
    tuned = compose(["method=depth", "model=tiny_depth", "video=clip.mp4", PROMPT], entry="train").config
    write_yaml(tmp_path / "run.yaml", {"config": tuned})
    again = compose(["method=depth", f"tuned={tmp_path}", PROMPT]).config
    assert again["choices"]["model"] == "tiny_depth" and again["model"] == tuned["model"]


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in CATALOG[group]])
def test_every_option_composes(group: str, name: str) -> None:
    composed = compose([f"{group}={name}", PROMPT])
    assert composed.config["choices"][group] == name
    assert isinstance(composed.config[group], dict)


@pytest.mark.parametrize("name", CATALOG["method"])
def test_every_method_composes(name: str) -> None:
    assert compose([f"method={name}", PROMPT]).methods[name]["_target_"]


@pytest.mark.parametrize("option", [o for options in CATALOG.values() for o in options.values()], ids=lambda o: o.name)
def test_every_key_is_documented_and_every_default_is_allowed(option) -> None:
    for key, entry in option.keys.items():
        self_evident = key == "_target_" or key.rpartition(".")[0] == "request_defaults" or option.group == "experiment"
        assert entry.comment or self_evident, f"{option.group}/{option.name}.yaml: {key} has no comment"
        assert not entry.choices or entry.value in entry.choices
    assert option.summary or option.group == "method"


def test_free_dictionaries_take_any_key() -> None:
    composed = compose(["scheduler=dpm", "scheduler.options.lower_order_final=false", "owner.plan=core", PROMPT])
    assert composed.config["scheduler"]["options"] == {"lower_order_final": False}
    assert composed.config["owner"] == {"plan": "core"}


def test_a_configuration_is_plain_data_and_repeats_itself() -> None:
    composed = compose(["method=talc", "talc.scene_frames=4", 'prompt=["a ${x}","b, c"]', "seed=3", "fps=5"])
    again = recompose(json.loads(json.dumps(composed.config)))
    assert again.config == composed.config
    assert again.request == composed.request


def test_a_recorded_configuration_takes_changes() -> None:
    recorded = compose(["method=talc", 'prompt=["a","b"]', "seed=3"]).config
    again = recompose(recorded, ["seed=4", "placement=low_memory", "talc.mode=merged", "prompt=c"])
    assert again.request.seed == 4
    assert again.request.videos[0].prompts == ("c",)
    assert again.config["placement"]["offload"] == "model"
    assert again.methods["talc"]["mode"] == "merged"
    with pytest.raises(BadRequest, match="keeps its method"):
        recompose(recorded, ["method=[]"])


def test_recorded_paths_and_tables_are_literal_and_take_changes(install_plugin) -> None:
    card = """
    from vidgen_core import Plugin
    plugin = Plugin(name="reader", summary="a test", package=__name__, reads=("image", "weights"))
    """
    install_plugin("reader", card, {"conf/method/reader.yaml": "# @package methods.reader\n_target_: a.b\n"})
    literal = ["image=a ${x}.png", "weights.reader=${y}, z", "output.root=${"]
    recorded = compose(["method=reader", *literal, "scheduler.options.a=1", "owner.plan=core", PROMPT]).config
    assert recorded["image"] == "a ${x}.png" and recorded["output"]["root"] == "${"
    assert recorded["weights"] == {"reader": "${y}, z"}
    assert recompose(recorded).config == recorded
    changes = ["image=null", "weights.reader=b", "output.root=c", "fps=null"]
    again = recompose(recorded, [*changes, "scheduler.options.b=2", "owner.guide=core"]).config
    assert (again["image"], again["weights"], again["output"]["root"], again["fps"]) == (None, {"reader": "b"}, "c", 8)
    assert again["scheduler"]["options"] == {"a": 1, "b": 2}
    assert again["owner"] == {"plan": "core", "guide": "core"}
    assert recompose(compose(["method=talc", "talc.scene_frames=2", PROMPT]).config, ["talc.scene_frames=[2,3]"])


def test_python_values_need_no_quoting() -> None:
    values = {"method": ["talc"], "prompt": ("a, b", "c=${d}"), "talc": {"scene_frames": [2, 3]}, "seed": 5}
    composed = compose([], values | {"output.dir": Path("my, folder"), "guidance_scale": np.float32(0.5)})
    assert composed.request.guidance_scale == 0.5
    assert composed.request.videos[0].prompts == ("a, b", "c=${d}")
    assert composed.methods["talc"]["scene_frames"] == [2, 3]
    assert composed.config["output"]["dir"] == "my, folder"
    array = {"scene_frames": np.array([2, 3])}
    assert compose([], values | {"talc": array}).methods == composed.methods


def test_any_working_directory_any_thread_again_and_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(3) as pool:
        seeds = pool.map(lambda seed: compose([f"seed={seed}", PROMPT]).request.seed, range(6))
        assert list(seeds) == list(range(6))


def test_inside_another_hydra_program(tmp_path: Path) -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "theirs.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        compose([PROMPT])
        assert hydra_compose("theirs").a == 1
        paths = [element.path for element in GlobalHydra.instance().config_loader().get_search_path().get_path()]
        assert not any("vidgen" in path for path in paths)


def test_composing_imports_nothing_heavy() -> None:
    program = (
        "import sys; from vidgen_core.config import compose; compose(['method=talc', 'prompt=x']);"
        "print(sorted({'torch','diffusers','transformers','peft','accelerate','decord','numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "[]"


OTHER_CODE = {"_target_": "vidgen_core.cli.main", "argv": ["list"]}


@pytest.mark.parametrize(
    ("group", "values"), [("methods", {"talc": OTHER_CODE}), ("model", OTHER_CODE), ("output", {"parts": [OTHER_CODE]})]
)
def test_a_record_names_no_code_but_what_installed_configuration_names(group: str, values: dict) -> None:
    recorded = compose(["method=talc", "model=tiny", PROMPT]).config
    recorded[group] = {**recorded[group], **values}
    with pytest.raises(BadRequest, match=rf"^{group}[.\w]*_target_=vidgen_core.cli.main: .*, and is refused"):
        recompose(recorded)


def test_factors_of_a_model_on_learning_rates_and_those_of_the_user_stand_together() -> None:
    tuning = ["method=tune_a_video", "model=moving_shapes_image", "video=clip.mp4", "prompt=a circle"]

    def factors(*more: str) -> dict[str, float]:
        found: dict[str, float] = compose([*tuning, *more], entry="train").config["trainer"]["rate_scale"]
        return found

    assert factors() == {"attn2": 0.1}
    assert factors("trainer.rate_scale.attn_temp=2") == {"attn2": 0.1, "attn_temp": 2}
    assert factors("trainer.rate_scale.attn2=1") == {"attn2": 1}
