"""Ship a pipeline folder: the same models with weights in half precision, swapped in whole."""

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from vidgen_moving_shapes.tokenizer import build_tokenizer
from vidgen_moving_shapes.training.progress import write_folder

CARD, INDEX = "MODEL_CARD.md", "model_index.json"
TOKENIZER_CLASS = "PreTrainedTokenizerFast"


def export(source: Path, out: Path) -> None:
    """Write `source` to `out`; the model card that is already there stays."""

    def write(folder: Path) -> None:
        if (out / CARD).exists():
            shutil.copy(out / CARD, folder / CARD)
        for config in source.glob("*/*config.json"):
            (folder / config.parent.name).mkdir(exist_ok=True)
            shutil.copy(config, folder / config.relative_to(source))
        for weights in source.glob("*/*.safetensors"):
            _write_halved(weights, folder / weights.relative_to(source))
        _write_tokenizer(folder / "tokenizer")
        index = json.loads((source / INDEX).read_text()) | {"tokenizer": ["transformers", TOKENIZER_CLASS]}
        _write_json(folder / INDEX, index)

    write_folder(out, write)


def _write_halved(source: Path, target: Path) -> None:
    halves = {name: tensor.half().contiguous() for name, tensor in load_file(source).items()}
    if source.parent.name == "text_encoder":
        # The prefix of CLIPTextModel before transformers 5, which reads it as well.
        halves = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in halves.items()}
    save_file(halves, target, metadata={"format": "pt"})


def _write_tokenizer(folder: Path) -> None:
    """A fresh tokenizer, free of the padding of its last use, under the class name that all transformers know."""
    build_tokenizer().save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    _write_json(path, json.loads(path.read_text()) | {"tokenizer_class": TOKENIZER_CLASS})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="pipeline folder of a training run")
    parser.add_argument("out", type=Path, help="pipeline folder to ship")
    options = parser.parse_args()
    export(options.source, options.out)


if __name__ == "__main__":
    main()
