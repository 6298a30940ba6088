"""What bodies ask for, and what is wrong with them."""

from __future__ import annotations

import pytest

from thresher.run.engine.sampling import Sampler
from thresher.run.serve.bodies import Asked, read_chat, read_completion
from thresher.run.serve.errors import refused_for

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
COMPLETION = {"prompt": "so"}


def test_defaults_are_openais():
    asked = read_chat(CHAT | {"model": "tiny", "user": "me", "metadata": {"a": "b"}})
    assert asked == Asked(
        "tiny", CHAT["messages"], Sampler(temperature=1.0), None, (), None, False, False
    )
    assert read_completion(COMPLETION).max_new_tokens == 16


def test_fields_that_change_nothing_may_be_there():
    nothing = {
        "n": 1,
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "modalities": ["text"],
        "parallel_tool_calls": True,
        "store": False,
        "functions": None,
        "audio": None,
    }
    assert read_chat(CHAT | nothing) == read_chat(CHAT)
    nothing = {"n": 1, "best_of": 1, "echo": False, "suffix": "", "logit_bias": None}
    assert read_completion(COMPLETION | nothing) == read_completion(COMPLETION)


def test_messages_come_back_as_clients_got_them():
    echoed = {"role": "assistant", "content": "hi", "refusal": None, "annotations": []}
    body = {"messages": [*CHAT["messages"], echoed | {"tool_calls": None, "audio": None}]}
    assert read_chat(body).prompt[1] == {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"temperature": 2.1}, "temperature", "at most 2"),
        ({"temperature": -0.1}, "temperature", "0 or more"),
        ({"temperature": float("nan")}, "temperature", "0 or more"),
        ({"temperature": True}, "temperature", "number"),
        ({"temperature": "1"}, "temperature", "number"),
        ({"temperature": 10**400}, "temperature", "no number"),
        ({"top_p": 0}, "top_p", "above 0"),
        ({"top_p": 1.1}, "top_p", "at most 1"),
        ({"top_k": 0}, "top_k", "at least 1"),
        ({"top_k": 2.0}, "top_k", "integer"),
        ({"min_p": 2}, "min_p", "from 0 to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty", "from 0.01 to 100"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty", "from 0.01 to 100"),
        ({"seed": 2**63}, "seed", "64 bits"),
        ({"seed": 0.5}, "seed", "integer"),
        ({"stop": ""}, "stop", "none of them empty"),
        ({"stop": ["a"] * 17}, "stop", "at most 16"),
        ({"stop": [1]}, "stop", "list of texts"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"stream": 1}, "stream", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream"),
        ({"stream": True, "stream_options": []}, "stream_options", "object"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "not supported"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options", "true or"),
        ({"n": 2}, "n", "not supported"),
        ({"n": True}, "n", "not supported"),
        ({"logit_bias": {"3": 1}}, "logit_bias", "not supported"),
        ({"frequency_penalty": 0.1}, "frequency_penalty", "not supported"),
        ({"nonsense": 0}, "nonsense", "not supported"),
        ({"model": 3}, "model", "text"),
    ],
)
@pytest.mark.parametrize(("read", "body"), [(read_chat, CHAT), (read_completion, COMPLETION)])
def test_what_is_wrong_with_both(read, body, changes, field, said):
    (problem,) = read(body | changes)
    assert problem.field == field
    assert said in problem.said


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"messages": []}, "messages", "missing or empty"),
        ({"messages": None}, "messages", "missing or empty"),
        ({"messages": "hello"}, "messages", "list of messages"),
        ({"messages": ["hello"]}, "messages[0]", "object"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "one of system"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "text or a list"),
        ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, "messages[0].name", "not"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
            "only parts of the type text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "text",
        ),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", "a type"),
        ({"tools": [{}]}, "tools", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
        ({"modalities": ["audio"]}, "modalities", "not supported"),
        ({"logprobs": 3}, "logprobs", "true or false"),
        ({"top_logprobs": 3}, "top_logprobs", "needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "give one"),
        ({"prompt": "x"}, "prompt", "not supported"),
    ],
)
def test_what_is_wrong_with_chats(changes, field, said):
    (problem,) = read_chat(CHAT | changes)
    assert problem.field == field
    assert said in problem.said


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"prompt": None}, "prompt", "missing"),
        ({"prompt": 3}, "prompt", "list of tokens"),
        ({"prompt": ["a", "b"]}, "prompt", "several texts"),
        ({"prompt": [[1], [2]]}, "prompt", "several texts"),
        ({"prompt": [1, True]}, "prompt", "list of tokens"),
        ({"prompt": [2**70]}, "prompt", "list of tokens"),
        ({"logprobs": True}, "logprobs", "integer"),
        ({"echo": True}, "echo", "not supported"),
        ({"best_of": 2}, "best_of", "not supported"),
        ({"suffix": "x"}, "suffix", "not supported"),
        ({"messages": []}, "messages", "not supported"),
    ],
)
def test_what_is_wrong_with_completions(changes, field, said):
    (problem,) = read_completion(COMPLETION | changes)
    assert problem.field == field
    assert said in problem.said


@pytest.mark.parametrize("prompt", ["so", ["so"], [1, 2], [[1, 2]]])
def test_a_prompt_may_be_a_batch_of_one(prompt):
    assert read_completion({"prompt": prompt}).prompt in ("so", [1, 2])


def test_everything_wrong_is_named_at_once():
    problems = read_chat(CHAT | {"tools": [{}], "n": 3, "temperature": 9, "seed": -1})
    error = refused_for(problems)
    assert (error.status, error.field) == (400, "temperature")
    for field in ("tools is not supported", "n is not supported", "temperature is 9"):
        assert field in error.said
    assert "seed" not in error.said
