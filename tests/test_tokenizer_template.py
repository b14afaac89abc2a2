"""Chat templates: rendering equal to transformers', and hostile templates that get nowhere."""

from __future__ import annotations

import time
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from bottega.core.errors import UserError
from bottega.tokenizer.template import render
from bottega.tokenizer.training import chat_template

LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}
    {{- 'Environment: ipython\\n' }}
{%- endif %}
{{- system ~ '<|eot_id|>' }}
{%- for message in messages %}
    {%- if message.role == 'tool' or message.role == 'ipython' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- set structured = message.content is mapping or message.content is iterable %}
        {{- message.content | tojson if structured else message.content }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}
    {%- endif %}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
MISTRAL = """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' + message['content'] + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}
{{ message['content'] + eos_token }}
{% endif %}
{% endfor %}"""
GEMMA = """{{ bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
    {% set role = 'model' if message.role == 'assistant' else message.role %}
    {{- '<start_of_turn>' ~ role ~ '\\n' ~ message.content | trim ~ '<end_of_turn>\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
TOOLS = """{%- macro describe(tool) -%}
{{ tool.function.name }}(
{%- for name, kind in tool.function.parameters.items() %}{{ name }}: {{ kind }}{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro -%}
{%- set ns = namespace(calls=0, last=messages | length - 1) -%}
{%- for tool in tools or [] %}
# {{ loop.index }}/{{ loop.length }} {{ describe(tool) }}
{{ tool | tojson(indent=2) }}
{% endfor -%}
{%- for message in messages[::-1] %}
  {%- if message.role == 'user' %}{% set ns.last = loop.revindex0 %}{% break %}{% endif %}
{%- endfor -%}
{%- for message in messages if message.role != 'system' %}
[{{ message.role }}{{ '!' if loop.index0 == ns.last }}{{ ' first' if loop.first }}
{{- loop.previtem.role if not loop.first }}]
{% generation %}{{ (message.content or '') | replace('a', 'b') | upper }}{% endgeneration %}
{%- for call in message.tool_calls or [] %}
{%- set ns.calls = ns.calls + 1 %}
<call {{ ns.calls }}>{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}</call>
{%- endfor %}
{%- if message.reasoning_content %}({{ message.reasoning_content.split('x')[-1].strip() }}){% endif %}
{%- endfor %}
{{- 'abc'[1:] ~ 3 ~ none ~ [1, '<é>'] ~ '%s-%03d' % ('u', 7) ~ '{:>5}'.format('r') ~ 2 ** 5 ~ 7 // 2 }}
"""
SYSTEM = {"role": "system", "content": " Be brief. "}
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": " <b>Hä?</b> & '\"\n"},
    {"role": "assistant", "content": "one\n\n two ", "reasoning": "x because "},
    {"role": "user", "content": "again 🙂"},
]
CALLS: list[dict[str, Any]] = [
    *TURNS,
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"q": "<é>"}}}]},
    {"role": "tool", "content": "42", "name": "f"},
]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"q": "string", "n": "integer"}}}
CASES = [
    (LLAMA3, [SYSTEM, *TURNS], None),
    (LLAMA3, TURNS, [TOOL]),
    (MISTRAL, TURNS, None),
    (GEMMA, TURNS, None),
    (TOOLS, [SYSTEM, *CALLS], [TOOL, TOOL]),
    (TOOLS, TURNS, None),
    (chat_template(), [SYSTEM, *TURNS], None),
    ("  {% if true %}\n  x\n  {% endif %}\n\ny\n", TURNS, None),
]


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_rendering_equals_transformers(case: int, prompt: bool) -> None:
    template, messages, tools = CASES[case]
    names: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>"}
    for count in range(1, len(messages) + 1):
        (expected,), _ = render_jinja_template(
            [messages[:count]], tools=tools, chat_template=template, add_generation_prompt=prompt, **names
        )
        assert render(template, messages[:count], add_generation_prompt=prompt, tools=tools, **names) == expected


def test_what_a_template_refuses_is_said() -> None:
    with pytest.raises(UserError, match="System role not supported"):
        render(GEMMA, [SYSTEM], add_generation_prompt=False, bos_token="")
    with pytest.raises(UserError, match="alternate"):
        render(MISTRAL, TURNS[1:], add_generation_prompt=False, bos_token="", eos_token="")


def test_the_messages_given_are_not_changed() -> None:
    messages = [dict(message) for message in TURNS]
    with pytest.raises(UserError):
        render("{{ messages.append(1) }}", messages, add_generation_prompt=False)
    assert messages == TURNS


ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ strftime_now.__code__.co_code }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ ''|attr('__class__') }}{{ (''|attr('__class__')).mro() }}",
    "{% set n = namespace(__class__=1) %}",
    "{% set n = namespace() %}{% set n.__init__ = 1 %}{{ n }}",
    "{% include '/etc/passwd' %}",
]
DOUBLE = "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = DOUBLED %}{% endfor %}{{ n.x }}"
FLOODS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
    "{{ range(10 ** 9) | list }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ [1] * 10 ** 10 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 'a' | center(10 ** 9) }}",
    "{{ 'a'.ljust(10 ** 9) }}",
    "{{ '%1000000000d' % 3 }}",
    "{{ '%*d' % (1000000000, 3) }}",
    "{{ '{:1000000000}'.format(3) }}",
    "{{ '{:{}}'.format(3, 1000000000) }}",
    "{{ strftime_now('%999999999d') }}",
    "{{ ('a' * 9999999).replace('a', 'b' * 9999999) }}",
    "{{ ('a' * 9999999) | replace('a', 'b' * 9999999) }}",
    "{{ (['a' * 9999999] * 99999) | join }}",
    "{{ ([1] * 99999) | map('center', 99999) | list }}",
    "{{ {'a': 1} | tojson(indent=10 ** 9) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    *(DOUBLE.replace("DOUBLED", text) for text in (
        "n.x ~ n.x", "n.x + n.x", "n.x * 2", "'%s%s' % (n.x, n.x)", "'{}{}'.format(n.x, n.x)", "[n.x, n.x] | join",
        "n.x.replace('a', 'aa')", "[n.x, n.x]", "{'a': n.x, 'b': n.x}")),
    "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
]  # fmt: skip


@pytest.mark.parametrize("template", [*ESCAPES, *FLOODS, "{% if %}", "{{ " + "(" * 5000])
def test_a_hostile_template_is_stopped(template: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError):
        render(template, TURNS, add_generation_prompt=False)
    assert time.monotonic() - started < 15


def test_a_long_conversation_is_no_attack() -> None:
    turns = [{"role": ("user", "assistant")[index % 2], "content": "word " * 2000} for index in range(400)]
    assert len(render(TOOLS, turns, add_generation_prompt=False)) > 4_000_000
    assert len(render(LLAMA3, turns, add_generation_prompt=True, bos_token="")) > 3_900_000


def test_objects_that_are_no_json_do_not_reach_the_template() -> None:
    with pytest.raises(UserError, match="JSON"):
        render("{{ messages }}", [{"role": "user", "content": "x", "file": object()}], add_generation_prompt=False)
