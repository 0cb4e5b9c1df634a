"""vidgen explain key=value ...    What the same command would do: values, origins, hooks and weights; loads none.

vidgen explain train key=value ...    The same of a training: all keys of data, objective and trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vidgen_core.config import RECORD, Composed, compose


def main(arguments: Sequence[str]) -> int:
    """Print the page."""
    trains = arguments[:1] == ["train"]
    composed = compose(arguments[trains:], entry="train" if trains else "config")
    from vidgen_core.run import batches_of, moments_of

    if trains:
        from vidgen_core.train import training_moments

        moments = training_moments(composed)
    else:
        moments = moments_of(composed)  # conflicts are found here
    for note in (*composed.notes, *moments.notes):
        print(note)
    _print_values(composed)
    for request, _ in batches_of(composed) if composed.request.videos else ():
        print(f"\nScenes of {request.num_frames} frames")
        for video in request.videos:
            for scene in video.scenes:
                name = f"{video.name or video.index}: " if len(composed.request.videos) > 1 else ""
                print(f"  {name}frames {scene.start}-{scene.stop - 1}  {scene.prompt}")
    if not composed.request.videos and not trains:
        print("\nNo prompt: this model has no example, so the run would be refused")
    print("\nHooks, in the order of a run")
    for hook, kind, owners in moments.table():
        print(f"  {hook:<16} {kind:<8} {' -> '.join(owners) or '-'}")
    _print_weights(composed)
    print("\nAll keys")
    for key, value in _leaves({k: v for k, v in composed.config.items() if k not in RECORD}):
        print(f"  {key.removeprefix('methods.')}={_text(value)}")
    return 0


def _print_values(composed: Composed) -> None:
    config = composed.config
    rows = [
        ("method", f"[{','.join(config['method'])}]", ""),
        *((g, option, "") for g, option in config["choices"].items()),
    ]
    rows += [(key, _text(config[key]), f"from {who}") for key, who in composed.origins.items()]
    width = max(len(key) + len(value) for key, value, _ in rows) + 1
    print("Request")
    for key, value, origin in rows:
        print(f"  {f'{key}={value}':<{width}}  {origin}".rstrip())


def _print_weights(composed: Composed) -> None:
    model = composed.config["model"]
    print(f"\nWeights that would be loaded\n  model: {model.get('path') or 'none, drawn at random'}")
    for name, path in {**(model.get("weights") or {}), **composed.config["weights"]}.items():
        if name in composed.methods:
            print(f"  {name}: {path or 'none'}")


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            leaves += _leaves(value, f"{prefix}{name}.")
        elif name != "_target_":
            leaves.append((f"{prefix}{name}", value))
    return leaves


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
