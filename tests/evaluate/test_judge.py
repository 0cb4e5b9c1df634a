"""Judges: what they are shown, how they are understood, and what happens when they fail."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidgen_core import cli
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.metrics.footage import Footage
from vidgen_core.metrics.judge import Answer, Judge, Judged, NoAnswer
from vidgen_core.metrics.judge_answers import published_scores, question, scores
from vidgen_core.metrics.judge_frames import published_indices, scene_indices
from vidgen_core.metrics.judge_http import Endpoint
from vidgen_core.video_writer import VideoWriter

CAPTIONS = ("a man walks", "the man sits")
YES = "Entity Consistency: YES\nBackground Consistency: PARTIALLY\nText Adherence: NO"


def video(path: Path, frames: int = 16, shade: int = 0) -> Footage:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = VideoWriter(path, 8, {}, 12, 0)
    writer.write(np.full((frames, 16, 16, 3), shade, np.uint8))
    writer.close()
    return Footage(path.stem, path, CAPTIONS, (range(frames // 2), range(frames // 2, frames)))


# ------------------------------------------------------------------------------------------- frames and answers


def test_every_scene_is_shown_inside_its_own_span() -> None:
    assert scene_indices((range(16), range(16, 26))) == [[2, 6, 10, 14], [17, 19, 22, 24]]
    assert scene_indices((range(2), range(2, 3))) == [[0, 1], [2]]


def test_the_published_rule_disregards_scenes_and_needs_enough_frames() -> None:
    assert published_indices(32, 2) == [1, 5, 9, 13, 17, 21, 25, 29]
    with pytest.raises(ValueError):
        published_indices(7, 2)


@pytest.mark.parametrize(
    "text",
    [
        YES,
        "1. Entity Consistency: YES\n\n2. Background Consistency: PARTIALLY\n\n3. Text Adherence: NO\n",
        "entity consistency - yes\nbackground consistency - partially\ntext adherence - no",
        "**Entity Consistency:** Yes.\n**Background Consistency:** Partially.\n**Text Adherence:** No.",
        '```json\n{"entity_consistency": "YES", "background_consistency": "PARTIAL", "text_adherence": "NO"}\n```',
        "- YES\n- PARTIALLY\n- NO",
        "Text adherence: NO\nEntity consistency: YES\nBackground consistency: partly",
        "Entity Consistency: the man looks the same in all frames, so YES\n"
        "Background Consistency: PARTIALLY, the wall changes\nText Adherence: NO because nobody sits",
        "Entity Consistency: No inconsistencies were found, so YES\n"
        "Background Consistency: no-one could call it the same room, PARTIALLY\nText Adherence: NO nobody sits",
        f"<think>Entity Consistency: no change ... Text Adherence: yes, he sits</think>\n{YES}",
        f"Entity Consistency: no? Text Adherence: yes? Let me look again.\nEntity Consistency: yes!\n{YES}",
        f"{YES}, for its entity consistency is good and nobody sits.",
        "| Entity Consistency | YES |\n| Background Consistency | PARTIALLY |\n| Text Adherence | NO |",
    ],
)
def test_an_answer_is_understood_however_it_is_laid_out(text) -> None:
    assert scores(text) == {"entity": 1.0, "background": 0.5, "text": 0.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot judge videos.",
        "Entity Consistency: YES / NO\nText Adherence: not sure",
        "Entity Consistency: No inconsistencies were found.\nText Adherence: No event is missing.",
        f"<think>{YES}",
    ],
)
def test_what_is_unclear_is_no_score_rather_than_a_zero(text) -> None:
    assert set(scores(text).values()) == {None}


def test_the_published_reading_is_as_strict_as_it_was() -> None:
    assert published_scores(YES) == (1.0, 0.5, 0.0)
    assert published_scores(YES.replace("YES", "yes")) == (0.0, 0.5, 0.0)
    assert published_scores(YES + "\n") is None


def test_the_question_holds_the_script_and_the_number_of_frames() -> None:
    text = question(CAPTIONS, 8)
    assert "Scene 1: a man walks\nScene 2: the man sits" in text
    assert "8 frames" in text and "2 scenes" in text


# ------------------------------------------------------------------------------------------------ the judge


class Speaker:
    name = "speaker"

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.seen: list[list[Any]] = []

    def answer(self, parts, most_tokens) -> Answer:
        self.seen.append(list(parts))
        said = self.answers.pop(0)
        if isinstance(said, Exception):
            raise said
        return Answer(said, 1000, 10)


def test_one_answer_serves_three_metrics_and_is_priced(tmp_path) -> None:
    judge = Judge(Speaker(YES), price_in=2.0, price_out=50.0)
    story = video(tmp_path / "a.mp4")
    found = {}
    for name in ("entity", "background", "text"):
        found |= Judged(name, judge).score(story)
    assert found == {"entity": 1.0, "background": 0.5, "text": 0.0}
    account = judge.account()
    assert (account["asked"], account["failed"], account["cost"]) == (1, 0, 0.0025)


def test_the_frames_of_each_scene_follow_its_heading(tmp_path) -> None:
    speaker = Speaker(YES)
    Judge(speaker).scores(video(tmp_path / "a.mp4"))
    kinds = [part if isinstance(part, str) else part.shape for part in speaker.seen[0][1:]]
    assert kinds == ["Frames of scene 1:", *[(16, 16, 3)] * 4, "Frames of scene 2:", *[(16, 16, 3)] * 4]


def test_failures_are_counted_and_are_no_scores(tmp_path, capsys) -> None:
    judge = Judge(Speaker(NoAnswer("it is busy"), "As a model I cannot.", YES))
    found = [judge.scores(video(tmp_path / f"{i}.mp4", shade=90 * i))["text"] for i in range(3)]
    assert found == [None, None, 0.0]
    assert (judge.account()["asked"], judge.account()["failed"]) == (3, 2)
    assert "no answer for '0': it is busy" in capsys.readouterr().err


def test_answers_are_kept_and_failures_asked_again(tmp_path) -> None:
    stories = [video(tmp_path / f"{i}.mp4", shade=90 * i) for i in range(2)]
    first = Judge(Speaker(YES, "nonsense"))
    first.keep(tmp_path / "answers.jsonl")
    for story in stories:
        first.scores(story)
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"key": "half a li')
    again = Judge(Speaker(YES))
    again.keep(tmp_path / "answers.jsonl")
    assert [again.scores(story)["entity"] for story in stories] == [1.0, 1.0]
    assert (again.account()["kept"], again.account()["asked"]) == (1, 1)
    third = Judge(Speaker())
    third.keep(tmp_path / "answers.jsonl")  # the torn line did not swallow the answer after it
    assert [third.scores(story)["entity"] for story in stories] == [1.0, 1.0]


def test_a_judge_that_has_gone_ends_the_command(tmp_path) -> None:
    judge = Judge(Speaker(*[NoAnswer("gone")] * 5))
    with pytest.raises(VidgenError, match="failed 5 times"):
        for i in range(5):
            judge.scores(video(tmp_path / f"{i}.mp4", shade=40 * i))


def test_a_second_run_asks_for_all_that_failed_and_could_not_be_read(tmp_path) -> None:
    stories = [video(tmp_path / f"{i}.mp4", shade=20 * i) for i in range(12)]
    for answers in ([YES, NoAnswer("busy")] * 6, [NoAnswer("busy")] * 4 + ["nonsense"] + [NoAnswer("busy")]):
        judge = Judge(Speaker(*answers))
        judge.keep(tmp_path / "answers.jsonl")
        for story in stories:
            judge.scores(story)
    assert (judge.account()["kept"], judge.account()["failed"]) == (6, 6)


def test_a_judge_that_can_never_be_read_ends_the_command(tmp_path) -> None:
    stories = [video(tmp_path / f"{i}.mp4", shade=40 * i) for i in range(6)]
    judge = Judge(Speaker(*["nonsense"] * 5))
    with pytest.raises(VidgenError, match="failed 5 times.*cannot be read: nonsense"):
        for story in stories:
            judge.scores(story)
    once = Judge(Speaker(YES, *["nonsense"] * 5))
    assert [once.scores(story)["text"] for story in stories] == [0.0, *[None] * 5]


def test_the_published_rule_shows_its_frames_and_refuses_too_few(tmp_path) -> None:
    speaker = Speaker(YES)
    judge = Judge(speaker, rule="published")
    assert judge.scores(video(tmp_path / "a.mp4", 32)) == {"entity": 1.0, "background": 0.5, "text": 0.0}
    assert len(speaker.seen[0]) == 1 + 8
    with pytest.raises(BadRequest, match="6 frames.*judge.rule=scenes"):
        judge.scores(video(tmp_path / "b.mp4", 6))


# --------------------------------------------------------------------------------------------- the endpoint

Reply = tuple[int, dict[str, str], Any]


@pytest.fixture
def endpoint() -> Iterator[Callable[..., tuple[str, list[Any]]]]:
    """``endpoint(reply, reply, ...)``: the address of a server that gives them in turn, and what it was sent."""
    servers = []

    def serve(*replies: Reply) -> tuple[str, list[Any]]:
        waiting, seen = list(replies), []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append((self.path, self.headers.get("Authorization"), body))
                status, headers, content = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1", seen

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def said(text: str) -> Reply:
    return (
        200,
        {},
        {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 900, "completion_tokens": 9}},
    )


def test_the_endpoint_gets_text_and_frames_and_gives_answer_and_tokens(endpoint) -> None:
    url, seen = endpoint(said(YES))
    frame = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    answer = Endpoint("seer", url, "secret").answer(["what is this?", frame], 300)
    assert answer == Answer(YES, 900, 9)
    path, key, body = seen[0]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer secret", "seer")
    text, image = body["messages"][0]["content"]
    assert text["text"] == "what is this?"
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == frame).all()


def test_a_busy_endpoint_is_asked_again_after_the_time_that_it_says(endpoint) -> None:
    url, seen = endpoint((429, {"Retry-After": "7"}, {}), (503, {}, {}), said(YES))
    waits: list[float] = []
    answer = Endpoint("seer", url, sleep=waits.append).answer(["?"], 300)
    assert (answer.text, waits, len(seen)) == (YES, [7.0, 2.0], 3)


def test_an_endpoint_that_stays_busy_has_no_answer(endpoint) -> None:
    url, seen = endpoint((500, {}, {"error": "out of order"}))
    with pytest.raises(NoAnswer, match="out of order"):
        Endpoint("seer", url, retries=2, sleep=lambda seconds: None).answer(["?"], 300)
    assert len(seen) == 3


def test_a_reply_without_an_answer_is_no_answer(endpoint) -> None:
    url, _ = endpoint((200, {}, {"choices": []}))
    with pytest.raises(NoAnswer, match="holds no answer"):
        Endpoint("seer", url, retries=0).answer(["?"], 300)


def test_an_answer_that_the_limit_of_tokens_cut_off_is_told_with_the_key_that_raises_it(
    endpoint, tmp_path, capsys
) -> None:
    choice = {"message": {"content": None}, "finish_reason": "length"}
    url, _ = endpoint((200, {}, {"choices": [choice]}))
    assert Judge(Endpoint("seer", url)).scores(video(tmp_path / "a.mp4"))["text"] is None
    assert "it is empty (cut off at judge.most_tokens=300; give it more)" in capsys.readouterr().err


def test_a_wrong_key_ends_the_command_at_once(endpoint) -> None:
    url, seen = endpoint((401, {}, {"error": "who are you"}))
    with pytest.raises(BadRequest, match="does not accept the key.*who are you"):
        Endpoint("seer", url, "wrong").answer(["?"], 300)
    assert len(seen) == 1


def test_a_story_that_an_endpoint_will_not_look_at_stops_no_others(endpoint, tmp_path, capsys) -> None:
    url, seen = endpoint(said(YES), (403, {}, {"error": "moderated"}), said(YES))
    stories = [video(tmp_path / f"{i}.mp4", shade=90 * i) for i in range(3)]
    judge = Judge(Endpoint("seer", url))
    assert [judge.scores(story)["entity"] for story in stories] == [1.0, None, 1.0]
    assert "no answer for '1'" in capsys.readouterr().err and len(seen) == 3


def test_an_endpoint_that_forbids_before_it_ever_answered_ends_the_command(endpoint, tmp_path) -> None:
    url, _ = endpoint((403, {}, {"error": "not for you"}))
    with pytest.raises(BadRequest, match="forbids it.*not for you"):
        Judge(Endpoint("seer", url)).scores(video(tmp_path / "a.mp4"))


def test_what_the_endpoint_refuses_is_left_out_of_every_question_and_takes_no_try(endpoint) -> None:
    refusals = ({"error": "use max_completion_tokens instead of max_tokens"}, {"error": "temperature has to be 1"})
    url, seen = endpoint(*((400, {}, refusal) for refusal in refusals), said(YES))
    judge = Endpoint("seer", url, retries=0)
    assert [judge.answer(["?"], 300).text for _ in range(2)] == [YES, YES]
    assert [len(body.keys() & {"max_tokens", "temperature"}) for _, _, body in seen] == [2, 1, 0, 0]
    assert seen[3][2]["max_completion_tokens"] == 300


def test_questions_keep_their_distance(endpoint) -> None:
    url, _ = endpoint(said(YES))
    now = [0.0]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    judge = Endpoint("seer", url, per_minute=30, sleep=sleep, clock=lambda: now[0])
    for _ in range(3):
        judge.answer(["?"], 300)
    assert waits == [2.0, 2.0]


# ---------------------------------------------------------------------------------------------- the command

METRICS = "metric=[entity_consistency,background_consistency,text_adherence]"


def test_videos_of_a_folder_are_judged_by_one_command(endpoint, tmp_path, monkeypatch, capsys) -> None:
    url, seen = endpoint(said(YES), (500, {}, {}), said(YES.replace("PARTIALLY", "YES")))
    monkeypatch.setenv("JUDGE_KEY", "secret-word")
    for i in range(3):
        video(tmp_path / "videos" / f"{i}.mp4", shade=90 * i)
    (tmp_path / "captions.json").write_text(json.dumps({str(i): list(CAPTIONS) for i in range(3)}))
    arguments = [f"videos={tmp_path / 'videos'}", f"captions={tmp_path / 'captions.json'}", METRICS]
    judge = ["judge=openai", "judge.model=seer", f"judge.url={url}", "judge.key_variable=JUDGE_KEY", "judge.retries=0"]
    command = ["evaluate", *arguments, *judge, "judge.price_in=10", f"output.dir={tmp_path / 'out'}"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "text: 1 of 3 videos have no score" in out
    assert "judge: model seer, asked 3, kept 0, failed 1, tokens in 1800, tokens out 18, cost 0.018" in out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    means = results["rows"][""]["means"]
    assert {name: means[name]["mean"] for name in ("entity", "background", "visual", "text", "overall")} == {
        "entity": 1.0,
        "background": 0.75,
        "visual": 0.875,
        "text": 0.0,
        "overall": 0.4375,
    }
    assert results["missing"]["overall"] == 1
    assert cli.main(command) == 0
    assert len(seen) == 4  # only what had failed was asked again
    assert "secret-word" not in (tmp_path / "out" / "results.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([METRICS], "asks a judge. Choose one: judge=openai"),
        ([METRICS, "judge=openai"], "needs the name of a model that sees images: judge.model="),
        ([METRICS, "judge=openai", "judge.model=seer", "judge.key_variable=NO_SUCH_KEY"], "NO_SUCH_KEY, which holds"),
        ([METRICS, "judge=openai", "judge.model=seer", "judge.url=here", "judge.key_variable="], "is no address"),
        ([METRICS, "judge=opnai"], "There is no judge 'opnai'. Did you mean 'openai'?"),
        ([METRICS, "judge=transformers"], "judge.path="),
        (["metric=text_adherance"], "There is no metric 'text_adherance'. Did you mean 'text_adherence'?"),
        (["metric=[]"], "No metric was chosen"),
        (
            ["metric=[oracle,text_adherence]", "judge=openai", "judge.model=seer", "judge.key_variable="],
            "metric=oracle and metric=text_adherence both give the score 'text'",
        ),
        (["metric=text_adherence", "judge=openai", "judge.modell=x"], "There is no key 'judge.modell'"),
        (["metric=clip_text", "clip.path=/nowhere/clip"], "there is no folder '/nowhere/clip'"),
    ],
    ids=str,
)
def test_a_judge_that_cannot_be_asked_is_told_in_a_paragraph(arguments, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    video(tmp_path / "videos" / "a.mp4")
    assert cli.main(["evaluate", f"videos={tmp_path / 'videos'}", f"output.dir={tmp_path / 'out'}", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
