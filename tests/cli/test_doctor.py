"""What `vidgen doctor` finds: nothing wrong here, and each fault with its mend."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

from vidgen_core import cli, environment
from vidgen_core.catalog import Option
from vidgen_core.commands.doctor import told
from vidgen_core.environment import NOTE, OK, WRONG, Finding
from vidgen_core.plugin import discover


def test_here_everything_is_looked_at_and_nothing_is_wrong(capsys) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for title in ("Packages", "Devices", "Attention", "Video", "Room", "Weights", "Plugins"):
        assert f"{title}\n  " in out
    for line in ("attention=sdpa on", "PyAV writes H.264", "model=moving_shapes\n", "talc, of vidgen"):
        assert f"  ok     {line}" in out
    assert out.endswith("Nothing is wrong.\n")
    assert cli.main(["doctor", "torch"]) == 2


def test_a_broken_plugin_is_wrong_and_says_why(capsys, install_plugin, monkeypatch) -> None:
    install_plugin("fragile", "import a_module_that_is_not_there\n")
    checks = {"Plugins": lambda: environment.plugins(discover())}
    monkeypatch.setattr("vidgen_core.commands.doctor.checks", lambda: checks)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "  wrong  fragile, of third-party-fragile 1.0: ModuleNotFoundError: No module named" in out
    assert "; mend or reinstall it\n         `vidgen list --why fragile` shows where\n" in out
    assert out.endswith("1 thing is wrong; see above.\n")


def test_packages_are_held_to_their_ranges() -> None:
    required = ["numpy>=1.26", "torch>=99", "vidgen-lacks-this>=2", "av>=99; python_version < '3'"]
    optional = ["vidgen-may-have-this; extra == 'more'", "pytest>=99; extra == 'more'", "ruff; extra == 'dev'"]
    python, *found = environment.packages(required + optional, ["more"])
    assert python.what.startswith("python 3.")
    assert [finding.state for finding in found] == [OK, WRONG, WRONG, NOTE, NOTE]
    assert found[0].what.endswith("(>=1.26)")
    assert found[1].mend == "pip install 'torch>=99'"
    assert found[2] == Finding(WRONG, "vidgen-lacks-this is not installed", "pip install 'vidgen-lacks-this>=2'")
    assert "pytest" in found[3].what and "is not >=99" in found[3].what
    assert found[4].what == "without vidgen-may-have-this" and "'vidgen[more]'" in found[4].mend


def test_a_gpu_is_tried_and_not_only_counted(monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    card = SimpleNamespace(name="Old", total_memory=2 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)

    def no_kernel(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(torch, "ones", no_kernel)
    _, gpu = environment.devices()
    assert gpu.state == WRONG
    assert gpu.what.startswith("cuda:0 Old, 2 GiB") and "no kernel image" in gpu.what and gpu.mend


def test_a_driver_without_a_torch_for_it_is_noted(monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    _, finding = environment.devices()
    assert finding == Finding(NOTE, "an NVIDIA driver, but torch is built for CPUs only", "install torch's CUDA build")


def test_video_that_cannot_be_written_is_wrong(monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise ValueError("Unknown encoder 'libx264'")

    monkeypatch.setattr("vidgen_core.video_writer.VideoWriter.write", fails)
    (finding,) = environment.video()
    assert finding.state == WRONG
    assert "Unknown encoder 'libx264'" in finding.what and "pip install" in finding.mend


def test_too_little_room_is_wrong(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    monkeypatch.setattr(os, "access", lambda folder, mode: True)
    runs, models = environment.room()
    assert (runs.state, models.state) == (WRONG, WRONG)
    assert runs.mend == "free some space, or output.root=<another folder>"
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    runs, models = environment.room()
    assert "not to be written" in runs.what and models.state == NOTE


def test_weights_are_found_in_packages_and_in_the_cache_of_the_hub(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--cached" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    refs = tmp_path / "models--owner--cached" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    texts = {
        "drawn": "trained_frames: 16",
        "cached": "path: owner/cached",
        "absent": "path: owner/absent",
        "yours": "path: null\nparts: owner/absent",
        "lost": "path: owner/cached\nweights:\n  mine: pkg://vidgen_core/no_such_file.safetensors",
    }
    options = {name: Option("model", name, "", text) for name, text in texts.items()}
    found = dict(zip(texts, environment.weights({"model": options}), strict=True))
    states = {name: finding.state for name, finding in found.items()}
    assert states == {"drawn": OK, "cached": OK, "absent": NOTE, "yours": NOTE, "lost": WRONG}
    assert "owner/absent downloads on first use" in found["absent"].what
    assert "model.path=" in found["yours"].what
    assert "no_such_file.safetensors is not there" in found["lost"].what


def test_what_cannot_be_looked_at_is_wrong_too(capsys) -> None:
    def check() -> None:
        raise OSError("libcuda.so is not there")

    assert told({"Devices": check, "Nothing": lambda: []}) == 1
    assert "wrong  cannot be checked: OSError: libcuda.so is not there" in capsys.readouterr().out
