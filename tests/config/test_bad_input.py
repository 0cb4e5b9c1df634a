"""Every mistake is one clear sentence that names what was written and what would be right."""

from __future__ import annotations

import pytest

from vidgen_core.config import compose
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.instantiate import instantiate

MISTAKES = {
    "unknown method": (["method=tlac"], "no method 'tlac'.*'talc'"),
    "unknown model": (["model=tinny"], "no model 'tinny'.*'tiny'.*modelscope"),
    "unknown option": (["scheduler=ddmi"], "no scheduler 'ddmi'.*'ddim'"),
    "unknown key": (["num_frame=3"], "no key 'num_frame'.*'num_frames'"),
    "unknown key of a group": (["placement.dtpe=fp32"], "'placement.dtpe'.*'placement.dtype'"),
    "unknown key of a method": (["method=talc", "talc.mod=merged"], "'talc.mod'.*'talc.mode'"),
    "option of a method not chosen": (["talc.mode=merged"], "not chosen.*method=talc"),
    "option of an unknown method": (["methods.tacl.mode=merged"], "no method 'tacl'.*'talc'"),
    "key below a value": (["model.path.x=1"], "'model.path.x'"),
    "wrong type": (["num_frames=abc"], "num_frames=abc: num_frames takes a whole number"),
    "fraction for a whole number": (["num_frames=1.5"], "takes a whole number"),
    "truth for a whole number": (["num_frames=true"], "takes a whole number"),
    "text for truth": (["resume=maybe"], "resume takes true or false"),
    "not a number": (["guidance_scale=nan"], "finite"),
    "nothing for a number": (["num_frames="], "takes a whole number"),
    "null where a value is needed": (["seed=null"], "seed takes a whole number"),
    "not a choice": (["attention=flsh"], "attention is one of auto, sdpa, flash, xformers, math"),
    "text for a dictionary": (["weights=x"], "keys of its own"),
    "zero frames": (["num_frames=0"], "num_frames=0 must be at least 1"),
    "negative frames": (["num_frames=-4"], "num_frames=-4 must be at least 1"),
    "no batch": (["batch_size=0"], "batch_size=0"),
    "empty prompt": (["prompt="], "prompt is empty"),
    "blank prompt": (["prompt=  "], "prompt is empty"),
    "no scenes": (["prompt=[]"], "prompt is empty"),
    "an empty scene": (['prompt=["a",""]'], "prompt is empty"),
    "negatives that do not match": (
        ['prompt=["a","b","c"]', 'negative_prompt=["x","y"]'],
        "2 negative prompts for 3",
    ),
    "method chosen twice": (["method=[talc,talc]"], "chosen twice"),
    "method written twice": (["method=talc", "method=talc"], r"one list: method=\[talc\]"),
    "a plugin that is no method": (["method=moving_shapes"], "not a method"),
    "no equals sign": (["a red circle"], "not key=value.*prompt='a red circle'"),
    "no key": (["=3"], "no key before '='"),
    "a dash": (["--seed=3"], "write seed="),
    "a plus": (["+seed=3"], "write seed="),
    "a sweep": (["seed=1,2"], r"seed=\[1,2\]"),
    "unreadable": (["seed=(1"], "cannot be read"),
    "a missing reference": (["method=talc", "talc.scene_frames=${nothing}"], "refers to what is not there"),
    "another target": (["model._target_=os.system"], "not by _target_"),
    "hydra's own keys": (["hydra.run.dir=x"], "no key 'hydra.run.dir'"),
    "a record": (["choices.model=x"], "no key 'choices.model'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_mend(mistake: str) -> None:
    arguments, pattern = MISTAKES[mistake]
    prompt = [] if any(argument.startswith("prompt=") for argument in arguments) else ["prompt=x"]
    with pytest.raises(BadRequest, match=pattern) as caught:
        compose([*arguments, *prompt])
    assert "\n" not in str(caught.value)


def test_a_broken_plugin_cannot_be_chosen_and_says_why(install_plugin) -> None:
    install_plugin("fragile", "import a_module_that_is_not_there\n")
    with pytest.raises(BadRequest, match="broken: ModuleNotFoundError.*a_module_that_is_not_there"):
        compose(["method=fragile", "prompt=x"])
    assert compose(["method=talc", "prompt=x"]).methods


def test_a_method_file_without_its_package_is_named(install_plugin) -> None:
    card = 'from vidgen_core import Plugin\nplugin = Plugin(name="eps", summary="a test", package=__name__)\n'
    install_plugin("eps", card, {"conf/method/eps.yaml": "_target_: third_party_eps.build\n"})
    with pytest.raises(BadRequest, match="must begin with the line '# @package methods.eps'"):
        compose(["method=eps", "prompt=x"])


@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.run", "vidgen_core.catalog.re.compile", "vidgen_core.plugin.find_spec", "", "x"],
)
def test_only_vidgen_and_its_plugins_are_built(target: str) -> None:
    with pytest.raises(VidgenError, match="refused|cannot be loaded"):
        instantiate({"_target_": target})


def test_an_unknown_keyword_of_a_target_is_named() -> None:
    with pytest.raises(BadRequest, match="takes no key 'nam'.*'name'"):
        instantiate({"_target_": "vidgen_core.errors.nearest", "nam": "x", "valid": []})
    with pytest.raises(BadRequest, match="needs the key 'valid'"):
        instantiate({"_target_": "vidgen_core.errors.nearest", "name": "x"})


def test_parts_are_built_first_and_facts_are_not_handed_over(install_plugin) -> None:
    card = """
    from vidgen_core import Plugin
    plugin = Plugin(name="delta", summary="a test", package=__name__)
    def part(size): return size + 1
    def whole(part, extra): return part, extra
    """
    install_plugin("delta", card)
    part = {"_target_": "third_party_delta.part", "size": 1}
    whole = {"_target_": "third_party_delta.whole", "family": "unet3d", "part": part}
    assert instantiate(whole, extra=3) == (2, 3)
