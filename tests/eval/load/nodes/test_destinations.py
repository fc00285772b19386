"""The machines that --cluster names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.errors import EvalError
from eval.load.nodes.destinations import Node, parse_nodes
from eval.load.nodes.ssh import ssh_argv


@pytest.mark.parametrize(
    "name",
    [
        "10.0.0.2",
        "sender-1.example.org",
        "ada@10.0.0.2",
        "my_alias",
        "ssh://10.0.0.2",
        "ssh://ada@sender.example.org:2222",
        "ssh://[2001:db8::2]:22",
        "2001:db8::2",
        "ada@fe80::1%eth0",
    ],
)
def test_destinations_of_ssh_are_taken_as_they_are(name):
    assert parse_nodes(name) == (Node(name),)


def test_several_stand_with_commas_between():
    assert [node.name for node in parse_nodes("a, b@c ,ssh://d:22")] == ["a", "b@c", "ssh://d:22"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "--cluster '': expected HOST"),
        ("a,,b", "--cluster '': expected HOST"),
        ("-oProxyCommand=touch x", "--cluster '-oProxyCommand=touch x': expected HOST"),
        ("a b", "--cluster 'a b': expected HOST"),
        ("a;b", "--cluster 'a;b': expected HOST"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}a", "--cluster '\\u202ea': expected HOST"),
        ("tcp://10.0.0.2:8786", "--cluster 'tcp://10.0.0.2:8786': expected HOST"),
        ("10.0.0.2:2222", "--cluster 10.0.0.2:2222: write the port as ssh://10.0.0.2:2222"),
        ("a,b,a", "--cluster names a twice"),
        (",".join(f"h{i}" for i in range(101)), "--cluster names 101 machines; 100 at most"),
    ],
    ids=["nothing", "two commas", "option", "space", "shell", "bidi", "dask", "port", "twice", "too many"],
)
def test_other_texts_are_refused_with_what_to_write(text, said):
    with pytest.raises(EvalError) as caught:
        parse_nodes(text)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_no_name_becomes_an_option_or_several_words(text):
    try:
        nodes = parse_nodes(text)
    except EvalError:
        return
    for node in nodes:
        argv = ssh_argv(node, "true")
        assert argv[-2] == node.name and argv[-1] == "true"
        assert not node.name.startswith("-") and len(node.name.split()) == 1
