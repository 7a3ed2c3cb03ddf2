"""Reading JSON and YAML: what is taken, and the exact place of what is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.lib.errors import SpecError
from slm_lab.spec.parse import MAX_DEPTH, MAX_VALUES, decode, parse_json, parse_yaml, plain_data

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(',]}"\\ a:'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(',]}"\\ a:'), inner, max_size=4),
    max_leaves=12,
)


def fault(parse, text: str) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(SpecError) as caught:
        parse(text, "f")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a": 1,}', {"a": 1}),
        ("[1, 2,]", [1, 2]),
        ('{"a": [1,], "b": {"c": 2 ,\n },\n}', {"a": [1], "b": {"c": 2}}),
        ('{"a": ",}", "b": ",]",}', {"a": ",}", "b": ",]"}),
        (r'{"a": "\",}",}', {"a": '",}'}),
        (r'{"a\\": 1,}', {"a\\": 1}),
    ],
)
def test_trailing_commas(text: str, data: object) -> None:
    assert parse_json(text, "f") == data


@pytest.mark.parametrize("text", ["[,]", "{,}", "[1,,]", '{"a": 1,,}', '{"a":,}', "[1 2,]", "[1,", '{"a": 1,'])
def test_other_commas_stay_errors(text: str) -> None:
    assert fault(parse_json, text).startswith("f:1:")


@given(JSONS)
def test_trailing_commas_change_nothing_else(data: object) -> None:
    """Any JSON, with a comma put before each closing bracket of a filled list or object, reads as before."""
    plain = json.dumps(data, indent=1)
    lines = [
        line + "," if i + 1 < len(lines) and lines[i + 1].strip()[0] in "]}" and line.strip()[-1] not in "[{," else line
        for lines in [plain.split("\n")]
        for i, line in enumerate(lines)
    ]
    assert parse_json("\n".join(lines), "f") == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1\n "b": 2}', "f:2:2\n  expecting ',' delimiter"),
        ("", "f:1:1\n  is empty"),
        ('{"a": ${x}}', 'f:1:7\n  put a variable in quotes: "${name}"'),
        (
            '{"a": 1,\n"b": {"c": 1,\n\n"c": 2}, "a": 3}',
            "f\n  line 4: key 'c' is given twice\n  line 4: key 'a' is given twice",
        ),
        ('{"a": 1, "\\u0061": 2}', "f\n  line 1: key 'a' is given twice"),
        (
            '{"a": NaN,\n"b": [-Infinity]}',
            "f\n  line 1: NaN is not a number that a spec can hold\n  line 2: -Infinity is not",
        ),
        ('{"a": 1e999}', "f\n  number too large: 1e999"),
        ('{"a": "\\ud800"}', "f\n  a: '\\ud800' is not valid Unicode"),
        ('{"a": 1} x', "f:1:10\n  extra data"),
        ("[" * 100_000, "f\n  nested too deeply"),
        ('{"a": 1' + "0" * 5000 + "}", "f\n  Exceeds the limit"),
    ],
)
def test_json_faults(text: str, message: str) -> None:
    assert fault(parse_json, text).startswith(message)


def test_the_same_key_in_two_objects_is_no_fault() -> None:
    assert parse_json('{"a": {"b": 1}, "b": {"a": [{"a": 1}, {"a": 2}]}}', "f")["b"] == {"a": [{"a": 1}, {"a": 2}]}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("3e-4", 3e-4),
        ("10e6", 10e6),
        ("-1E3", -1000.0),
        ("1.5e+3", 1500.0),
        ("1_0e1", 100.0),
        ('"3e-4"', "3e-4"),
        ("e4", "e4"),
        ("3e", "3e"),
        ("3e-4x", "3e-4x"),
        ("CartPole-v1", "CartPole-v1"),
        ("2026-01-02", "2026-01-02"),
        ("${env}", "${env}"),
        ("on", True),
        ("~", None),
    ],
)
def test_yaml_scalars(word: str, value: object) -> None:
    found = parse_yaml(f"a: {word}\nb: [{word.replace('${env}', '1')}]", "f")["a"]
    assert found == value
    assert type(found) is type(value)


def test_yaml_anchors_and_merges() -> None:
    text = "_a: &a {x: 1, y: 2}\np: {q: &b {<<: *a, x: 3}}\nc: {<<: *b, y: 4}"
    assert parse_yaml(text, "f") == {"_a": {"x": 1, "y": 2}, "p": {"q": {"x": 3, "y": 2}}, "c": {"x": 3, "y": 4}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\na: 3", "f\n  line 4: key 'c' is given twice\n  line 5: key 'a' is given twice"),
        ("a: [1\nb: 2", "f:2:2\n  expected ',' or ']', but got ':' (while parsing a flow sequence)"),
        ("a: .nan\nb: [-.inf]", "f\n  a: must be finite (got nan)\n  b[0]: must be finite (got -inf)"),
        ("2: a\ntrue: b", "f\n  key 2 must be text: put it in quotes\n  key True must be text: put it in quotes"),
        ("? [a]\n: b", "f:1:3\n  found unhashable key (while constructing a mapping)"),
        ("a: !!python/object:os.system x", "f:1:4\n  could not determine a constructor"),
        ("a: !!int abc", "f:1:4\n  can't read 'abc' as int"),
        ("a: !!bool abc", "f:1:4\n  can't read 'abc' as bool"),
        ("a: 0b_", "f:1:4\n  can't read '0b_' as int"),
        ("a: !!set {x}", "f\n  a: must be a number, text, true, false, null, a list or an object (got {'x'})"),
        ("&a [*a]", "f\n  nested too deeply, or an alias that holds itself"),
        ("a: 1\n---\nb: 2", "f:2:1\n  but found another document (expected a single document in the stream)"),
        ("a: \x01", "f\n  special characters are not allowed"),
        ("a:\tb\n\t- c", "f:1:3\n  found character '\\t' that cannot start any token"),
        ("[" * 5000, "f\n  nested too deeply"),
    ],
)
def test_yaml_faults(text: str, message: str) -> None:
    assert fault(parse_yaml, text).startswith(message)


def test_aliases_that_multiply_are_stopped() -> None:
    """Ten levels of ten aliases each are 10^10 values in a few lines; merges double the keys at each level."""
    rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" if i else "a0: &a0 [1]" for i in range(11)]
    assert f"more than {MAX_VALUES} values" in fault(parse_yaml, "\n".join(rows))
    rows = [f"b{i}: &b{i} {{<<: [*b{i - 1}, *b{i - 1}]}}" if i else "b0: &b0 {x: 1}" for i in range(30)]
    assert f"more than {MAX_VALUES} merged keys" in fault(parse_yaml, "\n".join(rows))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{}".encode("utf-16"), "f\n  is UTF-16 text, must be UTF-8"),
        ("{}".encode("utf-32"), "f\n  is UTF-32 text, must be UTF-8"),
        (b'{\n"a": "\xe9"}', "f:2\n  is not UTF-8 text (byte 0xe9)"),
        (b" " * 10_000_001, "f\n  too large for a spec file (10000001 bytes)"),
    ],
)
def test_wrong_encodings(data: bytes, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        decode(data, "f")
    assert str(caught.value) == message


def test_byte_order_mark_is_skipped() -> None:
    assert decode("{}".encode("utf-8-sig"), "f") == "{}"


def test_plain_data_copies() -> None:
    data = {"a": [1, (2, 3)]}
    copy = plain_data(data, "f")
    assert copy == {"a": [1, [2, 3]]}
    copy["a"].append(4)
    assert data == {"a": [1, (2, 3)]}


def test_plain_data_depth() -> None:
    data: list[object] = []
    for _ in range(MAX_DEPTH):
        data = [data]
    plain_data(data, "f")
    with pytest.raises(SpecError, match="nested too deeply"):
        plain_data([data], "f")
