"""The training loop, one for every method (``hookspecs.py`` is its story in words).

What a step computes belongs to the objective and the methods; this page turns batches into better weights. Samples,
noise and dropout are keyed by the step, so a resumed training is bit for bit the one that was not interrupted.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidgen_core import provenance
from vidgen_core.data.latent_cache import LatentCache
from vidgen_core.data.loading import read_ahead
from vidgen_core.data.sample import Batch, Draw, Source, draw_of, recurring
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.instantiate import built_methods, instantiate
from vidgen_core.moments import OBJECTIVE, Moments
from vidgen_core.noise import seed_of
from vidgen_core.placement import Placement
from vidgen_core.run import CORE_HOOKS, Run, batches_of, methods_attached
from vidgen_core.run_folder import choose_folder, claim_folder, is_resumed
from vidgen_core.training.checkpoints import Checkpoints
from vidgen_core.training.export import write_result
from vidgen_core.training.gradient_checkpointing import gradient_checkpointing
from vidgen_core.training.interrupts import Interrupts
from vidgen_core.training.latents import check_sizes
from vidgen_core.training.learner import Learner, choose_trainables, dropout_of, parameters_of
from vidgen_core.training.lock import lock
from vidgen_core.training.log import TrainingLog
from vidgen_core.training.machine import agreed, make_accelerator, memory_explained, rescued
from vidgen_core.training.optimiser import make_average, make_optimiser, make_schedule
from vidgen_core.training.options import check_options, doubts
from vidgen_core.training.reading import saved_first, side_by_side
from vidgen_core.training.sharding import begin_states, keep_whole, put_together, whole
from vidgen_core.training.validation import draw_samples, evaluating, validate
from vidgen_core.tuned_run import CLIP, places_of_clip

if TYPE_CHECKING:
    from vidgen_core.config import Composed

TRAINING_HOOKS: dict[str, Callable[..., Any]] = {**CORE_HOOKS, "data": lambda run: instantiate(run.config["data"])}
"""The core's own answer for each sole hook while it trains; the objective answers ``training_step``."""


def train(composed: Composed) -> list[Path]:
    """Train what a composed configuration describes; returns the files and folders that hold the result.

    Raises:
        BadRequest: for what was found before the first step; VidgenError for a training that failed. Checkpoints that
            were written before stay, and the same command with ``resume=true`` goes on from the last.
    """
    config, options = composed.config, composed.config["trainer"]
    check_options(options)
    moments = training_moments(composed)
    requests = [request for request, _ in batches_of(composed)] if options["sample_every"] else []
    run = Run(composed.request, config, moments)
    source: Source = moments.data(run=run)
    moments.check_data(run=run, source=source)
    held_out = source.held_out()
    held_out = source if held_out is None else held_out
    chosen = choose_folder(config)
    resumed = is_resumed(chosen, config)
    accelerator = make_accelerator(config, chosen)
    samples = options["batch_size"] * options["accumulation"] * accelerator.num_processes
    steps = number_of_steps(options, source, samples)
    with ExitStack() as stack:
        folder = claimed(chosen, run, resumed, accelerator, stack)
        stack.enter_context(memory_explained(options, lambda: caches(run, source), accelerator, folder))
        open_for_training(run, accelerator, stack)
        check_sizes(run, source)
        learner = Learner(run, choose_trainables(run))
        if options["cache"] == "latents":
            source.cache = held_out.cache = run.latent_cache = latent_cache(run, folder)
        optimiser = make_optimiser(learner.trainables, options, config["given"])
        schedule = make_schedule(optimiser, options, steps)
        keep_whole(learner.frozen, accelerator)
        wrapped, optimiser = accelerator.prepare(learner, optimiser)
        learner.renew()
        begin_states(optimiser, accelerator)
        accelerator.register_for_checkpointing(schedule)
        averaged = make_average(learner.trainables, options["ema"])
        checkpoints = Checkpoints(
            folder / "checkpoints", accelerator, learner.trainables, averaged, options["keep"], samples, len(source)
        )
        start = checkpoints.load() if resumed else 0
        if accelerator.is_main_process:
            run.provenance |= {"weights": run.backbone.weights, "processes": accelerator.num_processes}
            run.provenance[CLIP] = places_of_clip(config["video"], folder)
            provenance.write_yaml(folder / "run.yaml", provenance.record(config, run.provenance))
        if options["trackers"]:
            accelerator.init_trackers("vidgen")
        log = TrainingLog(folder, accelerator, steps, start)
        stack.callback(log.close)
        log.say(f"training: {describe(learner, accelerator, steps, samples)}")
        for doubt in doubts(config, source):
            log.say(f"warning: {doubt}")

        draws = (draw for step in range(start, steps) for draw in draws_of(step, steps, config, accelerator))
        batches = side_by_side(read_ahead(source, draws, options["workers"]), accelerator, log)
        in_a_row = Counter[str]()  # steps whose gradients were no numbers, by the part of the data that they showed
        learner.train()
        done = start

        def save() -> None:
            if done > start:
                checkpoints.save(done)
                log.say(f"step {done} is saved; output.dir={folder} resume=true goes on from it")

        stack.enter_context(saved_first(save))
        rescue = partial(rescued, save, optimiser, accelerator)
        interrupts = stack.enter_context(Interrupts())
        for step in range(start, steps):
            rate = schedule.get_last_lr()[0]
            part, numbers = optimise(wrapped, batches, optimiser, accelerator, step, config, log, rescue)
            schedule.step()
            # Parts take turns: a step of images between those of videos says nothing of the videos.
            bad = in_a_row[part] = 0 if math.isfinite(numbers["grad_norm"]) else in_a_row[part] + 1
            if bad > options["nonfinite_limit"]:
                done = step + 1
                kept = kept_if_finite(save, learner, checkpoints, accelerator)
                shown = f" of {part}" if part else ""
                raise VidgenError(
                    f"The gradients were NaN or infinite in {bad} steps{shown} in a row, the last of them step {done} "
                    f"with {log.left_out}; none changed the weights. {kept} With resume=true you may change "
                    "trainer.mixed_precision to bf16 or no, or mend the data; a lower trainer.learning_rate needs "
                    "another output.dir."
                )
            if averaged is not None and not bad:
                averaged.step(list(learner.trainables.values()))
            done, last = step + 1, step + 1 == steps
            if done % options["log_every"] == 0 or last or bad:
                log.write(done, {**numbers, "learning_rate": rate})
            log.show(done, {"loss": numbers["loss"]}, line=done % options["log_every"] == 0 or last)
            # Before the checkpoint of this step: a training resumed from that would miss this validation.
            if due(done, options["validate_every"], last):
                with rescue(), evaluating(learner, averaged):
                    found = validate(learner, held_out, options, config["seed"], accelerator, log)
                log.write(done, found)
                log.say(f"validation {found['validation']:.5f}")
                checkpoints.save_best(done, found["validation"])
            ends = interrupts.asked_anywhere(accelerator)
            if due(done, options["checkpoint_every"], last) or ends:
                checkpoints.save(done)
            if ends and not last:
                log.say(f"interrupted after step {done}; the same command with output.dir={folder} resume=true goes on")
                raise KeyboardInterrupt
            # After the checkpoint: whatever happens here costs nothing.
            if due(done, options["sample_every"], last) and accelerator.is_main_process:
                with evaluating(learner, averaged):
                    draw_samples(run, requests, folder / "samples", done)
        checkpoints.put_final_weights(options["export"])
        put_together(learner)
        learner.renew()
        if accelerator.is_main_process:
            moments.finish_training(run=run, backbone=run.backbone)
            files = write_result(run, learner, folder, options["export_dtype"])
        accelerator.wait_for_everyone()
        return [folder / "log.jsonl", *files] if accelerator.is_main_process else []


def optimise(
    learner: Any,
    batches: Iterator[Batch],
    optimiser: Any,
    accelerator: Any,
    step: int,
    config: Any,
    log: TrainingLog,
    rescue: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[str, dict[str, float]]:
    """One optimiser step over its micro-batches; a step whose gradients are no numbers leaves the weights as they are.

    Args:
        rescue: Around what leaves the weights as they are, and takes the most memory.

    Returns the part of the data that the step showed, and its numbers: the mean of every loss over micro-batches and
    processes, their sum ``loss`` (also by the part, ``loss <part>``), and ``grad_norm``.
    """
    options = config["trainer"]
    micros = options["accumulation"]
    sums: dict[str, Tensor] = {}
    seen: list[tuple[list[str], Tensor]] = []  # of each micro-batch, its samples and its loss
    with rescue():
        for micro in range(micros):
            batch = next(batches)
            # Dropout draws from the global generator: keyed here, so that nothing that happened before plays a part.
            torch.manual_seed(seed_of(config["seed"], "step", step, micro, accelerator.process_index))
            with nullcontext() if micro + 1 == micros else accelerator.no_sync(learner):
                terms = learner(batch)
                total = torch.stack(list(terms.values())).sum()
                accelerator.backward(total / micros)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach().float() / micros
            seen.append(([sample.name for sample in batch.samples], total.detach()))
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = whole(accelerator.clip_grad_norm_(parameters, options["max_grad_norm"] or math.inf))
    # Under a gradient scaler the optimiser itself leaves a step out and lowers the scale.
    if torch.isfinite(norm) or accelerator.scaler is not None:
        optimiser.step()
    if not torch.isfinite(norm):
        log.leave_out(step + 1, [(name, not total.isfinite()) for names, total in seen for name in names])
    optimiser.zero_grad(set_to_none=True)
    means = {name: float(accelerator.reduce(term, "mean")) for name, term in sums.items()}
    loss = sum(means.values())
    parts = {f"loss {batch.part}": loss} if batch.part else {}
    return batch.part, {"loss": loss, **parts, **means, "grad_norm": float(norm)}


def kept_if_finite(save: Callable[[], None], learner: Learner, checkpoints: Checkpoints, accelerator: Any) -> str:
    """Save unless the weights themselves are no numbers; returns what there is to go on from, as a sentence."""
    wrong = [name for name, p in learner.trainables.items() if not whole(p.detach()).isfinite().all()]
    if not wrong:
        save()
        return f"What was learnt is saved in '{checkpoints.folder}'."
    last = checkpoints.index.get("last")
    there = f"The last checkpoint is '{checkpoints.folder / last}'." if last else "There is no checkpoint."
    return f"But '{wrong[0]}' itself holds NaN or infinity by now. {there}"


def training_moments(composed: Composed) -> Moments:
    """The chosen methods and the objective, registered for one training; conflicts are found here."""
    methods = built_methods(composed)
    objective = instantiate(composed.config["objective"])
    trace = bool(composed.config["trace"])
    moments = Moments({**methods, OBJECTIVE: objective}, composed.config["owner"], TRAINING_HOOKS, trace=trace)
    moments.check_claims("trainable")
    return moments


def open_for_training(run: Run, accelerator: Any, stack: ExitStack) -> None:
    """Load, place and attach the backbone for as long as the stack is open."""
    config, options = run.config, run.config["trainer"]
    run.config = {**config, "placement": {**config["placement"], "dtype": "fp32"}}  # precision is accelerate's to mix
    backbone = run.moments.build_backbone(run=run)
    run.config = config
    backbone.to(accelerator.device)
    guidance = "two_pass" if accelerator.device.type == "cpu" else "batched"
    run.place(backbone, Placement(accelerator.device, torch.float32, guidance=guidance))
    stack.enter_context(backbone.attention_installed(str(config["attention"])))
    run.model_parameters = parameters_of(backbone)
    stack.enter_context(methods_attached(run, backbone))
    stack.enter_context(dropout_of((backbone.denoiser, backbone.methods), options["dropout"]))
    if options["gradient_checkpointing"]:
        stack.enter_context(gradient_checkpointing(backbone.denoiser, backbone.methods))
    backbone.methods.to(accelerator.device)


def claimed(chosen: Path, run: Run, resumed: bool, accelerator: Any, stack: ExitStack) -> Path:
    """The training's folder, the same in every process and locked by the main one for as long as the stack is open.

    What an overwritten run left of itself is removed.
    """
    folder = chosen
    if accelerator.is_main_process:
        folder, _ = claim_folder(chosen, run.config)
        lock(folder, stack, run.warn)
        for name in () if resumed else ("checkpoints", "samples", "model", "methods"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in () if resumed else ("run.yaml", "log.jsonl", "skipped.jsonl"):
            (folder / name).unlink(missing_ok=True)
    return Path(agreed(str(folder)))


def caches(run: Run, source: Source) -> bool:
    """Whether a training would go with the latent cache: the data's frames recur, and no method looks at pixels."""
    if not recurring(source):
        return False
    cached = {**run.config, "trainer": {**run.config["trainer"], "cache": "latents"}}
    try:
        run.moments.check_data(run=Run(run.request, cached, run.moments), source=source)
    except BadRequest:
        return False
    return True


def latent_cache(run: Run, folder: Path) -> LatentCache:
    """The cache of what this VAE makes of pixels, in ``trainer.cache_dir`` or beside the checkpoints.

    Raises BadRequest where there is no VAE, or where it trains.
    """
    if run.backbone.vae is None or any(parameter.requires_grad for parameter in run.backbone.vae.parameters()):
        raise BadRequest("trainer.cache=latents needs a VAE that stays as it is. Use trainer.cache=none.")
    digest = hashlib.sha256()
    for tensor in run.backbone.vae.state_dict().values():
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return LatentCache(run.config["trainer"]["cache_dir"] or folder / "latent_cache", digest.hexdigest()[:16])


def number_of_steps(options: Any, source: Source, samples: int) -> int:
    """``trainer.max_steps``, or as many as the epochs take. Raises BadRequest where neither is known."""
    if options["max_steps"]:
        return int(options["max_steps"])
    if not len(source):
        raise BadRequest("This data has no end. Say how long to train: trainer.max_steps=...")
    return int(options["epochs"]) * math.ceil(len(source) / samples)


def draws_of(step: int, steps: int, config: Any, accelerator: Any) -> Iterator[Draw]:
    """The draws of this process in one step, one for each micro-batch."""
    options = config["trainer"]
    for micro in range(options["accumulation"]):
        yield draw_of(
            step,
            micro,
            accelerator.process_index,
            accumulation=options["accumulation"],
            processes=accelerator.num_processes,
            batch_size=options["batch_size"],
            steps=steps,
            seed=config["seed"],
        )


def due(done: int, every: int, last: bool) -> bool:
    """Whether something that happens every so many steps, and at the end, happens now; 0 is never."""
    return bool(every) and (done % every == 0 or last)


def describe(learner: Learner, accelerator: Any, steps: int, samples: int) -> str:
    """What trains, where and how, in one line."""
    count = sum(p.numel() for p in learner.trainables.values())
    processes = f"{accelerator.num_processes} process{'es' if accelerator.num_processes > 1 else ''}"
    return (
        f"{count / 1e6:.2f} M parameters, {steps} steps of {samples} samples, {processes} on "
        f"{accelerator.device.type}, mixed precision {accelerator.mixed_precision}"
    )
