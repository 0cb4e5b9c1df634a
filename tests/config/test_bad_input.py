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
    "text for a dictionary": (["owner=x"], "keys of its own"),
    "weights that nobody reads": (["weights=x"], "no chosen method reads weights of their own"),
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
    "a missing reference": (["model=modelscope", "model.variant=${nothing}"], "refers to what is not there"),
    "an unreadable reference": (["model=modelscope", "model.variant=${"], "cannot be read"),
    "true for a number of frames": (["method=talc", "talc.scene_frames=true"], "whole number or a list of them"),
    "half a frame": (["method=talc", "talc.scene_frames=[3,2.5]"], "whole number or a list of them"),
    "a scene of no frames": (["method=talc", "talc.scene_frames=[3,0]"], "must be at least 1"),
    "a negative slice": (["placement.vae_slice=-1"], "vae_slice=-1 must be at least 0"),
    "negative chunks": (["placement.feed_forward_chunks=-1"], "must be at least 0"),
    "negative previews": (["output.preview_every=-1"], "must be at least 0"),
    "a quality that is none": (["output.crf=52"], "crf=52 must be from 0 to 51"),
    "negative guidance": (["guidance_scale=-1"], "guidance_scale=-1 must be at least 0"),
    "a number beyond floats": (["guidance_scale=1" + "0" * 400], "finite"),
    "no frames a second": (["fps=0"], "fps=0 must be at least 1"),
    "a device without memory": (["placement.device=meta"], "one of auto, cpu, cuda, cuda:N, mps"),
    "an owner's part": (["owner.plan.x=1"], "owner.<hook>=<method>"),
    "a model's default for no key": (["model.method_defaults.talc=3"], "<method>.<key>=<value>"),
    "a model's default of another type": (
        ["method=talc", "model=tiny", "model.method_defaults.talc.fps=abc"],
        "fps=abc: fps takes a whole number",
    ),
    "a model's default below 1": (["model=tiny", "model.request_defaults.fps=0"], "must be at least 1"),
    "nobody as owner": (["owner.plan=null"], "owner.plan takes text"),
    "an owner beside a mapping": (["owner={plan:core}", "owner.plan=core"], "owner.plan= was written 2 times"),
    "a mapping for a number": (["seed={a:1}"], "no key 'seed.a'"),
    "an empty mapping": (["owner={}"], "keys of its own"),
    "a target among all options": (["method=talc", "talc={_target_:x}"], "not by _target_"),
    "an image for nobody": (["image=a.png"], "image= is given, but no chosen method reads it"),
    "a video for nobody": (["method=talc", "video=a.mp4"], "video= is given"),
    "a tuned run for nobody": (["tuned=runs/a"], "tuned= is given"),
    "weights for a method that reads none": (["method=talc", "weights.talc=a"], "weights.talc= is given"),
    "no weights": (["weights.talc="], "weights.talc takes text"),
    "a key written twice": (["seed=1", "seed=2"], "seed= was written 2 times"),
    "a group written twice": (["model=tiny", "model=tiny"], "model= was written 2 times"),
    "an option written twice": (["method=talc", "talc.mode=merged", "methods.talc.mode=merged"], "2 times"),
    "a list with more than texts": (['prompt=["one", 2]'], "Every scene is a text"),
    "bytes that are no text": (["prompt=a \udcff"], "not UTF-8"),
    "bytes that are no name": (["output.dir=\udcff"], "not UTF-8"),
    "half a character": (['prompt=["\\ud800"]'], "lone surrogate"),
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


PYTHON_MISTAKES = {
    "a scene that is no text": ({"prompt": ["a", 3]}, "a text for each scene"),
    "a prompt that is no text": ({"prompt": 5}, "takes a text"),
    "a negative that is no text": ({"negative_prompt": 3}, "takes a text"),
    "bytes": ({"prompt": b"a"}, "a bytes is no value"),
    "a set": ({"method": "talc", "talc": {"scene_frames": {3, 4}}}, "a set is no value"),
    "a path that is none": ({"image": 5}, "no path"),
    "half a character": ({"prompt": "\ud800"}, "lone surrogate"),
    "a NUL": ({"prompt": "a\0b"}, "NUL"),
    "a key in two forms": ({"placement": {"dtype": "fp32"}, "placement.dtype": "bf16"}, "written 2 times"),
}


@pytest.mark.parametrize("mistake", PYTHON_MISTAKES)
def test_a_mistake_from_python_is_named_with_its_mend(mistake: str) -> None:
    values, pattern = PYTHON_MISTAKES[mistake]
    with pytest.raises(BadRequest, match=pattern):
        compose([], {"prompt": "x"} | values)


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
    plugin = Plugin(name="delta", summary="a test", package=__name__, is_method=False)
    def part(size): return size + 1
    def whole(part, extra): return part, extra
    """
    install_plugin("delta", card)
    part = {"_target_": "third_party_delta.part", "size": 1}
    whole = {"_target_": "third_party_delta.whole", "family": "unet3d", "part": part}
    assert instantiate(whole, extra=3) == (2, 3)
