"""What StreamingT2V remembers: what its card says, where it lives, and that it goes when the batch ends."""

from __future__ import annotations

import gc
import weakref

import torch
from vidgen_streaming.method import Streaming, build

from vidgen_core.cli import main
from vidgen_core.models import tiny
from vidgen_core.run import frames, opened
from vidgen_core.testing import make_run, request

DRAWN = {"model": {"untrained": True, "image_encoder": "pkg://vidgen_moving_shapes/weights/clip"}}


def test_the_card_says_what_is_remembered_where_and_how_long(capsys) -> None:
    assert main(["show", "streaming"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["remembers"]]
    assert "The last frames (streaming.overlap of them) and one anchor frame of each video" in line
    assert "as floats in the main memory, until the batch ends" in line
    assert "the anchor's tokens and the keys of texts on the device" in line


def test_all_of_it_goes_when_the_batch_ends() -> None:
    method, backbone = build(chunk=4, overlap=2, hidden=8, embedding_widths=[8, 8, 8, 8]), tiny.build()
    assert isinstance(method, Streaming)
    run = make_run(request(num_frames=8), {"streaming": method}, DRAWN)
    with opened(run, backbone):
        encoder = weakref.ref(method.encode.__self__)  # type: ignore[attr-defined]
        for _ in frames(run):
            pass
        gc.collect()
        assert encoder() is None  # the anchor stays, so it was encoded once
        recalled, (tokens, _) = method.memory.recall(), method.tokens(run, None)  # type: ignore[arg-type]
        assert recalled is not None
        assert recalled.frames.shape == (1, 2, 3, 32, 32)
        assert recalled.anchor.shape == (1, 3, 32, 32)
        assert {(part.device.type, part.dtype) for part in (recalled.frames, recalled.anchor)} == {
            ("cpu", torch.float32)
        }
        held = [weakref.ref(thing) for thing in (method.memory.last, method.memory.anchor, tokens)]
        del recalled, tokens
    gc.collect()
    assert [thing() for thing in held] == [None] * 3
    assert "streaming" not in backbone.methods
