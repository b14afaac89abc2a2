"""How models write tool calls: a few formats, and which of them a chat template teaches.

hermes   `<tool_call>\\n{"name": …, "arguments": {…}}\\n</tool_call>`, repeated (Hermes 2 Pro, Qwen 2.5 and 3)
llama3   `{"name": …, "parameters": {…}}` as the whole answer, perhaps behind `<|python_tag|>` (Llama 3.1, 3.2)
mistral  `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]` (Mistral 7B v0.3, Nemo, Small 3)
mistral_args  `[TOOL_CALLS]name[ARGS]{…}`, repeated (Mistral Small 3.2, Magistral, Devstral)
json     `[{"name": …, "arguments": {…}}, …]` as the whole answer, where a template teaches none of the above
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from bottega.core.errors import UserError

FormatName = Literal["hermes", "llama3", "mistral", "mistral_args", "json"]


@dataclass(frozen=True)
class ToolFormat:
    """One format. `begin` stands before a call (before the list, where calls are listed), `end` behind it.

    `begin` may be optional (llama3), and a special token of the tokenizer (mistral's are); without it the whole
    answer is calls or text. `arguments` is the key of the arguments; None: `[ARGS]` stands between name and them.
    """

    name: FormatName
    begin: str = ""
    end: str = ""
    arguments: str | None = "arguments"
    listed: bool = False
    parallel: bool = True
    short_ids: bool = False
    """Ids of nine letters and digits, which Mistral's templates insist on."""

    @property
    def marked(self) -> bool:
        """Whether calls can be told from text by what stands before them."""
        return bool(self.begin) and self.name != "llama3"


FORMATS: dict[FormatName, ToolFormat] = {
    made.name: made
    for made in (
        ToolFormat("hermes", "<tool_call>", "</tool_call>"),
        ToolFormat("llama3", "<|python_tag|>", arguments="parameters", parallel=False),
        ToolFormat("mistral", "[TOOL_CALLS]", listed=True, short_ids=True),
        ToolFormat("mistral_args", "[TOOL_CALLS]", arguments=None, short_ids=True),
        ToolFormat("json", listed=True),
    )
}
ARGUMENTS_MARK = "[ARGS]"

# Formats that are not JSON, or not as above: to take them for one of ours would constrain a model to what it never saw.
_FOREIGN = {
    "<function=": "XML parameters (Qwen3-Coder, Llama's <function=…>)",
    "<｜tool▁calls▁begin｜>": "DeepSeek's markers",
    "<|channel|>": "Harmony channels",
    "<arg_key>": "GLM's XML",
    "functools[": "Phi-4's functools",
    "<start_function_call>": "FunctionGemma's calls",
    "<|tool_call_start|>": "Python calls (LFM2)",
    "<|action_start|>": "InternLM's actions",
}


def format_of(template: str | None) -> ToolFormat:
    """The format that a chat template teaches. Raises UserError if it shows the model no tools, or in a foreign way."""
    text = template or ""
    if not re.search(r"\btools\b", text):
        raise UserError(
            "tools: the model's chat template has no place for tools, so the model would never hear of them",
            hint="Use a model that was trained to call tools, or describe the JSON you want and use response_format.",
        )
    for mark, what in _FOREIGN.items():
        if mark in text:
            raise UserError(
                f"tools: the model writes its calls in a format that is not supported: {what}",
                hint="Use a model with Hermes, Llama 3 or Mistral calls.",
            )
    if "[TOOL_CALLS]" in text:
        return FORMATS["mistral_args" if ARGUMENTS_MARK in text else "mistral"]
    if "<tool_call>" in text:
        return FORMATS["hermes"]
    if "<|python_tag|>" in text or re.search(r'"parameters"\s*:', text) or "<|start_header_id|>" in text:
        return FORMATS["llama3"]
    return FORMATS["json"]
