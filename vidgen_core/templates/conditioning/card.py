"""my_method: a video changes from its prompt into a second one."""

from vidgen_core import Plugin

plugin = Plugin(
    name="my_method",
    summary="a video changes from its prompt into a second one",
    package=__name__,
    composes_with="It decides the text of every frame, so it goes with methods that cut or sample frames.",
    trial={"my_method.caption": "a cat sleeps"},
    hook_api=1,
)
