"""Prompts as the release completes them before it makes a video."""

from __future__ import annotations

import dataclasses

from vidgen_core.request import Request, VideoRequest

SUFFIX = ", cinematic, High Contrast, highly detailed, no blur, 4k render"

NEGATIVE = (
    "Distorted, discontinuous, Ugly, blurry, low resolution, motionless, static, disfigured, disconnected limbs, Ugly "
    "faces, incomplete arms"
)


def as_published(request: Request) -> Request:
    """The request with every prompt completed, and the release's negative prompt where none was written.

    What has no text stays without.

    Scenes that were laid on frames already are completed in their places. The captions of a training stay, beside the
    negative prompt, which is what a sample without text reads.
    """
    return request.replace(videos=tuple(_completed(video) for video in request.videos))


def _completed(video: VideoRequest) -> VideoRequest:
    suffix = "" if video.spans else SUFFIX  # frames that are known beforehand are those of a training
    negatives = tuple(negative or NEGATIVE for negative in video.negative_prompts)
    scenes = tuple(
        dataclasses.replace(s, prompt=s.prompt and s.prompt + suffix, negative_prompt=s.negative_prompt or NEGATIVE)
        for s in video.scenes
    )
    prompts = tuple(prompt and prompt + suffix for prompt in video.prompts)
    return dataclasses.replace(video, prompts=prompts, negative_prompts=negatives, scenes=scenes)
