"""What prompts share: ids of trace files, sessions, common beginnings; and the real traces that say what was found."""
from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from driven import common, driven, shared
from hypothesis import given
from hypothesis import strategies as st
from trace_samples import BAILIAN, CSV, MOONCAKE, WEKA, complaint

from sim.core.content import Content
from sim.core.registry import WORKLOADS
from sim.core.rng import stream
from workloads._identity import Ends, blocks, of_sessions, of_tokens
from workloads._prefixes import NOTHING, Prefixes, beginnings, openings
from workloads.formats.base import load

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"
HEAD = "arrival_s,input_tokens,output_tokens,session_id\n"
LINES = [json.loads(line) for line in MOONCAKE.splitlines()]


@pytest.fixture
def file(tmp_path):
    def write(content, name="trace.txt"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
        return str(path)

    return write


def real(name):
    path = TRACES / name
    if not path.exists():
        pytest.skip(f"the trace is not at {path}")
    return str(path)


def sent(path, **options):
    return driven({"kind": "trace", "path": path, **options}).requests


def parts(request):
    """(key, end) of each segment, keys counted from the first."""
    return [(key, end) for key, end in zip(request.content.keys, request.content.ends, strict=True)]


def test_mooncake_rows_share_their_equal_ids(file):
    first, second, third = sent(file(MOONCAKE))
    assert list(first.content.ends) == [512, 1024, 1536, 1758]
    assert list(third.content.ends) == [512]
    assert shared(first, second) == 512
    assert shared(second, third) == 512
    assert {request.reply for request in (first, second, third)} == {0}
    # Half of the rows and more have the first block: a system prompt. A prompt ends where it ends.
    assert [request.content.common for request in (first, second, third)] == [512] * 3


def test_two_trace_workloads_have_keys_of_their_own(file):
    path = file(MOONCAKE)
    world = driven({"kind": "trace", "path": path})
    again = driven({"kind": "trace", "path": path}, world=world)
    mine, yours = ({key for request in part for key in request.content.keys} for part in (again.requests[:3], again.requests[3:]))
    assert len(mine) == len(yours) == 6
    assert not mine & yours


def test_ids_that_mean_a_block_alone_are_keyed_with_what_is_before(file):
    rows = [{"timestamp": at, "input_length": 1024, "output_length": 1, "hash_ids": ids} for at, ids in enumerate([[1, 2], [3, 2], [1, 2]])]
    one, other, same = sent(file(rows))
    assert shared(one, other) == 0
    assert shared(one, same) == 1024


def test_bailian_blocks_have_16_tokens_and_the_last_may_lack_an_id(file):
    first, second = sent(file(BAILIAN))
    assert (list(first.content.ends), list(second.content.ends)) == ([16, 21], [16, 32])
    assert shared(first, second) == 21


def test_hashes_of_64_bits_and_ids_of_a_block_size(file):
    ids = [[2**64 - 1, 2**63], [2**64 - 1, 5]]
    rows = [{"arrival_s": 0, "input_tokens": 32, "output_tokens": 1, "block_size": 16, "hash_ids": one} for one in ids]
    assert shared(*sent(file(rows))) == 16
    table = pa.table({"arrival_s": [0.0, 1.0], "input_tokens": [32, 32], "output_tokens": [1, 1], "block_size": [16, 16],
                      "hash_ids": pa.array(ids, pa.list_(pa.uint64()))})  # fmt: skip
    path = str(Path(file("")).with_name("x.parquet"))
    pq.write_table(table, path)
    assert shared(*sent(path)) == 16
    assert "one size" in complaint(file([rows[0], {**rows[1], "block_size": 32}]))[0].message


def test_weka_agents_share_within_their_session_only(file):
    path = file([WEKA, {**WEKA, "id": "another"}])
    requests = sent(path)
    assert [request.session for request in requests] == [0, 1] * 4
    main, again = (request for request in requests if request.session == 0 and request.prompt in (130, 200))
    assert shared(main, again) == 128
    assert shared(requests[0], requests[1]) == 0
    assert shared(*sent(file([{**WEKA, "hash_id_scope": "global"}] * 2, "global"), limit=2)) == 128
    short = sent(file([{**WEKA, "requests": [{"t": 0, "in": 60, "out": 5, "hash_ids": []}]}], "short"))
    assert [request.content for request in short] == [None]
    # Sessions: the sub-agents have contexts of their own, and the main one goes on from its answer.
    requests = sent(path, prefix="session")
    assert [request.content.ends for request in requests] == [(130,), (130,), (64,), (64,), (130, 150, 200), (130, 150, 200), (70,), (70,)]
    assert requests[4].content.keys[:2] == (*requests[0].content.keys, requests[0].reply)


def test_tokens_are_compared_block_by_block(file):
    rows = [{"arrival_time_ns": at, "input_toks": 40, "output_toks": 1, "input_tok_ids": [*range(40 - at), *[7] * at]} for at in (0, 1, 10)]
    first, second, third = sent(file(rows))
    assert (shared(first, second), shared(first, third)) == (32, 16)
    assert list(first.content.ends) == [16, 32, 40]
    short = file([{**rows[0], "input_tok_ids": [1, 2]}, rows[1]])
    assert "input_tok_ids is a list of 2 tokens; the row has 40 input tokens" in complaint(short)[0].message
    prompts = file([{"prompt_token_ids": [*range(20), extra], "output_tokens": 1} for extra in (5, 6)])
    assert shared(*sent(prompts, rate=1)) == 16


def test_rows_that_refer_to_earlier_ones_of_their_session(file):
    text = "arrival_s,input_tokens,output_tokens,session_id,prefix_ref,prefix_tokens\n"
    rows = ["0,100,10,a,-1,0", "1,50,5,b,-1,0", "2,120,10,a,0,90", "3,200,10,a,1,125", "4,60,5,b,0,50", "5,90,1,a,1,80"]
    requests = sent(file(text + "\n".join(rows) + "\n"))
    # The key of what is new in a row's prompt.
    keys = [request.content.keys[-1] for request in requests]
    assert [parts(request) for request in requests] == [
        [(keys[0], 100)], [(keys[1], 50)], [(keys[0], 90), (keys[2], 120)],
        [(keys[0], 90), (keys[2], 120), (requests[2].reply, 125), (keys[3], 200)],
        [(keys[1], 50), (keys[4], 60)], [(keys[0], 80), (keys[5], 90)],
    ]  # fmt: skip
    assert len({*keys, *(request.reply for request in requests)}) == 12
    # Rows that are left out still link those that are not.
    late = sent(file(text + "\n".join(rows) + "\n"), window=[3, 10])
    assert shared(late[0], late[2]) == 80
    for row, words in (("6,10,1,a,9,5", "prefix_ref is 9; an earlier row of its session, 0 to 3, or -1"),
                       ("6,10,1,a,0,11", "prefix_tokens makes 11 tokens; its 10 input tokens")):  # fmt: skip
        [problem] = complaint(file(text + "\n".join([*rows, row]) + "\n"))
        assert words in problem.message
        assert problem.line == 8


def test_a_turn_goes_on_from_the_one_before_as_far_as_it_is_long_enough(file):
    rows = ["0,100,10,s", "1,150,10,s", "2,155,10,s", "3,40,10,s", "4,60,10,s", "5,70,10,"]
    path = file(HEAD + "\n".join(rows) + "\n")
    world = driven({"kind": "trace", "path": path})
    requests = world.requests
    keys, replies = [request.content.keys[-1] for request in requests], [request.reply for request in requests]
    # 150 has room for turn 0 and its answer; 155 for 5 tokens of an answer of 10; 40 is a context cut down; no session, no past.
    assert [parts(request) for request in requests[:5]] == [
        [(keys[0], 100)], [(keys[0], 100), (replies[0], 110), (keys[1], 150)],
        [(keys[0], 100), (replies[0], 110), (keys[1], 150), (replies[1], 155)], [(keys[3], 40)],
        [(keys[3], 40), (replies[3], 50), (keys[4], 60)],
    ]  # fmt: skip
    assert requests[5].content.ends == (70,)
    assert "prefix: session" in world.remarks[0]
    assert [request.content for request in sent(path, prefix="none")] == [None] * 6
    fronts = sent(path, shared_prefix=30)
    assert [request.content.ends for request in fronts] == [
        (30, 100), (30, 100, 110, 150), (30, 100, 110, 150, 155), (30, 40), (30, 40, 50, 60), (30, 70),
    ]  # fmt: skip
    assert {request.content.common for request in fronts} == {30}
    assert sent(path, shared_prefix=50)[3].content.ends == (40,)
    assert len({request.content.keys[0] for request in fronts}) == 1


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        ({"hash_ids": [0, 14]}, 2, "hash_ids has 2 ids; 1322 input tokens are 3 blocks of 512"),
        ({"hash_ids": [0, 1, 2, 3]}, 2, "hash_ids has 4 ids; 1322 input tokens are 3 blocks of 512"),
        ({"hash_ids": [0, -1, 2]}, 2, "hash_ids has a negative id"),
        ({"hash_ids": [0, 1.5, 2]}, 2, "hash_ids has 1.5 in it; a list of whole numbers"),
        ({"hash_ids": [0, True, 2]}, 2, "hash_ids has True in it"),
        ({"hash_ids": "0 1 2"}, 2, "hash_ids is '0 1 2'; a list of whole numbers"),
        ({"hash_ids": None}, 2, "hash_ids is missing; other rows have it"),
    ],
)
def test_bad_ids(file, change, line, words):
    path = file([LINES[0], {**LINES[1], **change}, LINES[2]])
    [problem] = complaint(path)
    assert words in problem.message
    assert "`prefix: none` does without the ids" in problem.message
    assert (problem.file, problem.line) == (path, line)
    assert len(sent(path, prefix="none")) == 3
    assert load(path).content is None


def test_bad_ids_in_parquet(tmp_path):
    path = str(tmp_path / "x.parquet")
    table = {"arrival_s": [0.0, 1.0], "input_tokens": [600, 600], "output_tokens": [1, 1]}
    for ids, words in (
        ([[1, 2], [1]], "row 2: hash_ids has 1 id; 600 input tokens are 2 blocks"),
        ([[1, 2], None], "row 2: hash_ids is missing"),
        ([[1, 2], [1, None]], "gaps"),
        ([[1.0, 2.0], [1.0, 2.0]], "lists of whole numbers are wanted"),
    ):
        pq.write_table(pa.table({**table, "hash_ids": ids}), path)
        assert words in complaint(path)[0].message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ([], "no list `requests`"),
        ("x", "JSON objects are wanted"),
        ([{"t": 0, "in": 1, "out": 1, "hash_ids": [1, 2]}], "1 input tokens are 0 or 1"),
        ([{"t": 0, "out": 1, "hash_ids": []}], "in is empty"),
        ([{"type": "subagent", "t": 1}], "has no list `requests`"),
    ],
)
def test_bad_weka_sessions(file, change, words):
    session = {**WEKA, "requests": {}} if not change else {**WEKA, "requests": list(change)}
    assert words in complaint(file([session]))[0].message
    assert "block_size is 0" in complaint(file([{**WEKA, "block_size": 0}]))[0].message


def test_options_of_a_trace_that_do_not_fit_it(file):
    plain, ids = file(CSV, "a.csv"), file(MOONCAKE, "b.jsonl")
    for path, options, key, words in (
        (plain, {"prefix": "ids"}, "prefix", "the trace has no ids of shared prompts"),
        (plain, {"prefix": "session"}, "prefix", "the trace has no sessions"),
        (ids, {"shared_prefix": 10}, "shared_prefix", "say already what its prompts share"),
        (ids, {"prefixes": Prefixes(tokens=5)}, "prefixes", "say already"),
    ):
        [problem] = complaint(path, **options)
        assert (problem.path, problem.file) == (key, path)
        assert words in problem.message
    assert len(sent(ids, prefix="none", prefixes={"tokens": 5})) == 3


def test_mooncake_trace_shares_what_its_own_column_says():
    path = real("mooncake_conversation_t0-2400.parquet")
    seen, blocks_found = set(), []
    rows = load(path, identity=True)
    for content, _ in rows.content.contents(Keys()):
        found = next((place for place, key in enumerate(content.keys) if key not in seen), len(content.keys))
        seen.update(content.keys)
        blocks_found.append(found)
        assert content.ends[-1] <= rows.prompt[len(blocks_found) - 1]
    assert blocks_found == pq.read_table(path, columns=["prefix_blocks_seen"]).column(0).to_pylist()
    assert sum(blocks_found) / len(rows.content.keys) == pytest.approx(0.3509, abs=1e-4)
    assert set(rows.content.common.tolist()) == {512}


def test_coding_sessions_share_what_their_own_columns_say():
    rows = load(real("cc_weka_requests_A.parquet"), zero_tokens="skip", order="sort", identity=True)
    known, old = set(), 0
    for content, reply in rows.content.contents(Keys(), forever()):
        begins = [0, *content.ends[:-1]]
        old += sum(end - begin for key, begin, end in zip(content.keys, begins, content.ends, strict=True) if key in known)
        known.update(content.keys, [reply])
    # A few rows come before the one they refer to.
    assert rows.content.shared[rows.content.row].sum() / rows.prompt.sum() == pytest.approx(0.9626, abs=1e-4)
    assert old / rows.prompt.sum() == pytest.approx(0.9626, abs=2e-4)
    # By the rule for sessions alone, which also finds the answers: a little more.
    guess = of_sessions(rows.thread, rows.prompt, rows.output)
    assert 0.96 < guess.shared.sum() / rows.prompt.sum() < 0.98


def test_tokens_of_a_real_benchmark():
    requests = "e2e/llmservingsim/requests/sharegpt-llama-3.1-8b-300-sps10.jsonl"
    rows = load(real(f"../{requests}"), identity=True)
    assert len(rows.content.counts) == 300
    assert (rows.content.counts == -(-rows.prompt // 16)).all()


class Keys:
    """Only hands out keys."""

    name = "keys"

    def __init__(self):
        self.fresh = 1

    def keys(self, count):
        first, self.fresh = self.fresh, self.fresh + count
        return first

    def rng(self, name):
        return stream(5, name)


def forever():
    while True:
        yield NOTHING


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=8))
def test_keys_are_equal_exactly_where_prompts_are(lists):
    """However ids are meant, two rows have as many keys in common as ids at their front."""
    flat = np.array([one for ids in lists for one in ids], dtype=np.int64)
    counts = np.array([len(ids) for ids in lists])
    for found in (blocks(flat, counts, counts * 4, 4), of_tokens(lists, counts, 1)):
        keys = [found.keys[first : first + count].tolist() for first, count in zip(found.first, found.counts, strict=True)]
        for mine, yours in ((a, b) for a in range(len(lists)) for b in range(len(lists))):
            alike = next((i for i, (x, y) in enumerate(zip(lists[mine], lists[yours], strict=False)) if x != y), None)
            alike = min(len(lists[mine]), len(lists[yours])) if alike is None else alike
            assert len(set(keys[mine]) & set(keys[yours])) == alike
            assert keys[mine][:alike] == keys[yours][:alike]


@given(st.integers(0, 6), st.integers(1, 30), st.integers(1, 30))
def test_ends_are_a_sequence_like_any_other(count, size, rest):
    whole = range(size, size * count + 1, size)
    ends, plain = Ends(whole, size * count + rest), [*whole, size * count + rest]
    assert list(ends) == plain
    assert [ends[i] for i in range(-len(plain), len(plain))] == plain * 2
    assert (list(ends[1:]), len(ends)) == (plain[1:], len(plain))
    for beyond in (len(plain), -len(plain) - 1):
        with pytest.raises(IndexError):
            ends[beyond]


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(1, 40), st.integers(1, 20)), min_size=1, max_size=25))
def test_sessions_spelled_out_token_by_token(rows):
    """Contents against prompts written out: common tokens are found by comparing them one by one."""
    thread, prompt, output = (np.array(column) for column in zip(*rows, strict=True))
    chain = of_sessions(thread, prompt, output)
    texts, past = [], {}
    for row, (session, tokens, answer) in enumerate(rows):
        before, length = past.get(session, ([], 0)) if session >= 0 else ([], 0)
        kept = before[:tokens] if tokens >= length else []
        text = kept + [(row, place) for place in range(len(kept), tokens + answer)]
        past[session] = text, tokens
        texts.append(text)
    sent = list(chain.contents(Keys(), forever()))
    owner = {}
    for row, (content, reply) in enumerate(sent):
        owner |= {key: row for key in (content.keys[-1], reply) if key not in owner}
    for (content, reply), text, tokens in zip(sent, texts, prompt, strict=True):
        assert content.ends[-1] == tokens
        spelled = [key for key, begin, end in zip(content.keys, [0, *content.ends], content.ends, strict=False) for _ in range(begin, end)]
        assert [owner[key] for key in spelled] == [row for row, _ in text[:tokens]]
        assert reply not in spelled
    # Places where two texts part are places where the keys do.
    for mine, yours in ((a, b) for a in range(len(rows)) for b in range(a)):
        both = zip(texts[mine][: prompt[mine]], texts[yours][: prompt[yours]], strict=False)
        alike = next((place for place, (one, other) in enumerate(both) if one != other), min(prompt[mine], prompt[yours]))
        assert common(sent[mine][0], sent[yours][0]) == alike


def test_popularity_of_prefixes_follows_zipf():
    world, count = Keys(), 50_000
    drawn = [content.keys[-1] for content in islice(beginnings(world, 100, Prefixes(tokens=50, count=4, zipf=1.0)), count)]
    shares = np.array([drawn.count(key) for key in sorted(set(drawn))]) / count
    wanted = np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12)
    np.testing.assert_allclose(shares, wanted, atol=5 * np.sqrt(wanted.max() / count))
    content = next(beginnings(world, 100, Prefixes(tokens=50)))
    assert (content.ends, content.common) == ((100, 150), 150)
    assert next(beginnings(world, 0, None)) == NOTHING


def test_requests_with_one_prompt_share_all_of_it():
    starts = iter([Content((7,), (100,), 100)] * 4)
    found = list(openings(Keys(), starts, [250, 60], samples=2))
    assert found[0] is not found[2]
    assert [(content.ends, content.common, reply) for content, reply in found] == [((100, 250), 100, 0)] * 2 + [((60,), 60, 0)] * 2
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"prefixes": {"count": 3}}, "prefixes.tokens", "missing"),
        ({"prefixes": {"tokens": 0}}, "prefixes.tokens", "at least 1"),
        ({"prefixes": {"tokens": 5, "zip": 1}}, "prefixes.zip", "did you mean zipf?"),
        ({"prefixes": {"tokens": True}}, "prefixes.tokens", "a number is wanted"),
        ({"prefixes": 7}, "prefixes", "a mapping is wanted"),
        ({"prefix": "turns"}, "prefix", "is wanted"),
    ],
)
def test_bad_options(options, path, words):
    [problem] = WORKLOADS.check({"kind": "trace", "path": "x.csv", **options})[1]
    assert problem.path == path
    assert words in problem.message
