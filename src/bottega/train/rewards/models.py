"""Rewards by models: a reward model's score, a judge's mark, and a function of the user's own."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.clients.chat import Reply
from bottega.core.errors import BottegaError, UserError, did_you_mean
from bottega.core.progress import Quiet
from bottega.data.formats.detect import examples_of
from bottega.data.formats.kinds import Prompt, Rejected
from bottega.data.formats.read import as_messages
from bottega.evaluate.judge.answers import Answer as Judged
from bottega.evaluate.judge.answers import Turn
from bottega.evaluate.judge.asking import (
    AskAll,
    ask_generator,
    endpoint_judge,
    judge_all,
    judge_generator,
    judge_of,
)
from bottega.evaluate.judge.calls import Call
from bottega.evaluate.judge.config import JudgeAnswers
from bottega.evaluate.judge.prompts import Messages, own_prompts, single_prompt
from bottega.evaluate.judge.store import Store
from bottega.evaluate.judge.verdicts import HIGHEST, LOWEST
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.rewards.answer import Answer, Score, ScoreAll
from bottega.train.rewards.config import RewardSettings
from bottega.train.rewards.text import texts_of

if TYPE_CHECKING:
    from bottega.generate.generator import Generator


def reward_model(settings: RewardSettings, device: str) -> ScoreAll:
    """The score of prompt and answer by a reward model, as it is. Its tokens must be those of the policy."""
    from bottega.model.reward import RewardModel

    folder = Path(settings.path or "")
    model, behind = RewardModel.load(folder, device=device), behind_answers(Tokenizer.load(folder))

    def text(answer: Answer) -> list[int]:
        ids = [*answer.prompt_ids, *answer.completion_ids]
        whole = [*ids, *behind]
        return whole if answer.finished and len(whole) <= model.context_length else ids

    return lambda answers: model.scores([text(each) for each in answers]).tolist()


def behind_answers(tokenizer: Tokenizer) -> list[int]:
    """What the chat template writes behind the token that ends an answer: of ChatML, a line feed.

    A model stops before it, but it is the last token of the conversations that a reward model was trained on, and so
    the one whose score counts.
    """
    if not tokenizer.chat_template:
        return []
    question, answer = ({"role": role, "content": "1"} for role in ("user", "assistant"))
    chat = encode_chat(tokenizer, [question, answer])
    last = max((place for place, trained in enumerate(chat.mask) if trained), default=len(chat.ids) - 1)
    return chat.ids[last + 1 :]


def judged(settings: RewardSettings) -> ScoreAll:
    """A judge's mark of 1 to 10 as 0 to 1; what cannot be read earns 0. Equal answers are judged once.

    Judgements are kept in the workspace, as those of `bottega judge` are. Raises BottegaError if none came.
    """
    of_endpoint = {"judge_model": settings.judge_model, "api_key_env": settings.api_key_env}
    given = {name: value for name, value in of_endpoint.items() if value is not None}
    config = JudgeAnswers.parse({"answers": [Path()], "judge": settings.path, **given}, where="reward judge")
    judge, prompts = judge_of(config), own_prompts()
    ask_all = endpoint_judge(judge.endpoint, config) if judge.endpoint else _kept_judge(config)

    def score(answers: Sequence[Answer]) -> list[float]:
        each = [conversation(answer, settings.row_field) for answer in answers]
        calls = [Call(("policy",), (one,), single_prompt(prompts, one)) for one in each]
        with Store(judge.store_path(config)) as store, Quiet().bar("", None) as bar:
            judgements, _ = judge_all(calls, judge, store, ask_all, bar)
        failed = [judgement.error for judgement in judgements if judgement.reply is None]
        if len(failed) == len(calls) > 0:
            raise BottegaError(f"the judge answered none of {len(calls)} questions: {failed[0]}")
        marks = [judgement.score for judgement in judgements]
        return [0.0 if mark is None else (mark - LOWEST) / (HIGHEST - LOWEST) for mark in marks]

    return score


def _kept_judge(config: JudgeAnswers) -> AskAll:
    """A model folder that is loaded by the first question, and stays: every step asks it."""
    loaded: list[Generator] = []

    def ask_all(conversations: Sequence[Messages]) -> Iterator[tuple[int, Reply | BottegaError]]:
        if conversations and not loaded:
            loaded.append(judge_generator(config))
        return ask_generator(loaded[0], conversations, config) if conversations else iter(())

    return ask_all


def conversation(answer: Answer, reference: str | None) -> Judged:
    """What the judge is shown: the row's question (and turns before it), the answer, and the right one if named."""
    asked = turns_of(answer.row)
    system = next((content for role, content in reversed(asked) if role == "system"), "")
    # Who speaks in two messages speaks once: questions and answers take turns.
    both = groupby((each for each in asked if each[0] in ("user", "assistant")), key=itemgetter(0))
    said = [(role, "\n\n".join(content for _, content in messages)) for role, messages in both]
    said = said[1:] if said and said[0][0] == "assistant" else said
    questions, replies = said[::2], said[1::2]
    if not questions:
        raise UserError("a judge is to be shown what was asked, and a prompt's row has no question")
    given = [*(content for _, content in replies[: len(questions) - 1]), answer.text]
    turns = tuple(Turn(question, reply) for (_, question), reply in zip(questions, given, strict=True))
    right = tuple(texts_of(answer.row, reference)[:1]) if reference is not None else ()
    references = ("",) * (len(turns) - 1) + right if right else ()
    return Judged(id="", turns=turns, system=system, references=references)


def turns_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(role, content) of what a prompt's row asks; raises UserError if it asks nothing."""
    try:
        _, examples = examples_of(dict(row), "prompts")
    except Rejected as reason:
        raise UserError(f"a judge is to be shown what was asked, and a prompt's row has {reason}") from None
    found = [message for each in examples if isinstance(each, Prompt) for message in as_messages(each.prompt, "user")]
    return [(str(message["role"]), str(message.get("content") or "")) for message in found]


def own_function(settings: RewardSettings) -> Score:
    """The user's function of (text, row, finished). Its file is run here, in this process, as the user's own code.

    Raises UserError if there is no such file or function, and if it fails or returns no finite number.
    """
    path, name = Path(settings.path or ""), settings.function
    function = _loaded(path, name)

    def score(text: str, row: Mapping[str, Any], finished: bool) -> float:
        try:
            value = float(function(text, dict(row), finished))
        except Exception as error:  # it is the user's code
            raise UserError(f"{name} of {path} fails: {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise UserError(f"{name} of {path} returned {value}", hint="A reward is a finite number.")
        return value

    return score


def _loaded(path: Path, name: str) -> Any:
    if not path.is_file():
        raise UserError(f"there is no file {path}, which a reward names")
    spec = importlib.util.spec_from_file_location(f"bottega_reward_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not Python", hint="Give a file whose name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is the user's code
        raise UserError(f"{path} fails: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{path} has no function {name!r}", hint=did_you_mean(name, known))
    return function
