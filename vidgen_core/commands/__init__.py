"""The verbs of ``vidgen``, one module each."""

VERBS = {
    "generate": "make a video; the verb may be left out",
    "train": "train a method or a model; experiment=<name> runs a recorded one",
    "evaluate": "compare methods, or score videos: table, intervals, plot, a page of videos side by side",
    "list": "the methods and models that are installed; --why <plugin> shows why one is broken",
    "show": "all about a method, model or plugin: paper, hooks, options with their defaults",
    "explain": "what a command would do: values and their origins, who owns which hook; loads no weights",
    "matrix": "every pair of methods in both orders: runs on a tiny model, or is refused with the reason",
    "new": "write a package with a method of your own; it works and tests itself as written",
    "doctor": "check the environment: versions, devices, codecs, room, weights, plugins; each with a mend",
    "convert": "a published checkpoint as safetensors that a method reads",
    "replay": "repeat a video from its file or its run.yaml, in a new folder",
}
"""Verb -> what it does, for `vidgen --help`."""
