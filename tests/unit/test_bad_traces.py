"""Every kind of bad trace file, with the error it earns: what is wrong, where, and what would be right."""
from __future__ import annotations

import gzip
import itertools

import pytest
from trace_samples import AZURE_2023, CSV, MOONCAKE, complaint

HEAD = "arrival_s,input_tokens,output_tokens\n"


@pytest.fixture
def file(tmp_path):
    def write(content, name="trace.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", 0, "the file is empty"),
        (b"\n \n", 0, "the file is empty"),
        (b"\xef\xbb\xbf", 0, "the file is empty"),
        (HEAD, 1, "no row below it"),
        (HEAD.rstrip(), 1, "no row below it"),
        (HEAD + "0,abc,1\n", 2, "input_tokens is 'abc'; a number is wanted"),
        (HEAD + "0,nan,1\n", 2, "input_tokens is 'nan'; a number is wanted"),
        (HEAD + "inf,1,1\n", 2, "arrival_s is 'inf'; a number is wanted"),
        (HEAD + "0,,1\n", 2, "input_tokens is empty"),
        (HEAD + "0,1.5,1\n", 2, "a whole number of tokens is wanted"),
        (HEAD + "0,1,1\n-1,1,1\n", 3, "1 row has negative times (line 3)"),
        (HEAD + "0,-5,1\n", 2, "1 row has negative input tokens (line 2)"),
        (HEAD + "0,1e12,1\n", 2, "input tokens beyond 2147483647"),
        (HEAD + "0,1e300,1\n", 2, "input tokens beyond 2147483647"),
        (HEAD + "0,1\n", 2, "2 cells; the header has 3"),
        (HEAD + "\n0,1,1\n\n\n1,1\n", 6, "2 cells; the header has 3"),
        (HEAD + "0,1,1\n\n1,x,1\n", 4, "input_tokens is 'x'"),
        ("0.0,374,44\n1.0,396,109\n", 0, "is not recognised; it begins with '0.0,374,44'"),
        ("time,input_tokens,output_tokens\n0,1,1\n", 0, "is not recognised"),
        ("hello world\n", 0, "is not recognised"),
        (AZURE_2023.replace("2023-11-16 18:15:50.9951690", "yesterday"), 3, "timestamp is 'yesterday'; a date and time"),
        (MOONCAKE[:-20], 3, "this is no JSON object"),
        (MOONCAKE + "[1]\n", 4, "this is no JSON object but '[1]'"),
        (MOONCAKE.replace("1322", '"long"'), 2, "input_length is 'long'"),
        (MOONCAKE.replace("1322", "true"), 2, "input_length is True"),
        (MOONCAKE.replace('"input_length": 1322, ', ""), 2, "input_length is empty"),
        (b"\x00\x01\x02\xff" * 50, 0, "binary file"),
        (b"PK\x03\x04rest", 0, "a ZIP archive or a spreadsheet"),
        (CSV.encode("utf-16"), 0, "UTF-16"),
        (gzip.compress(CSV.encode(), mtime=0)[:-12], 0, "the gzip file ends too early"),
        (gzip.compress(CSV.encode() * 2000, mtime=0)[:60], 0, "the gzip file ends too early"),
        (gzip.compress(CSV.encode(), mtime=0)[:12] + b"garbagegarbagegarbage", 0, "the gzip file is damaged"),
        (gzip.compress(b"", mtime=0), 0, "the file is empty"),
        (b"PAR1 and no more", 0, "damaged or incomplete"),
    ],
    ids=itertools.count(),
)
def test_bad_files(file, content, line, words):
    path = file(content)
    problem = complaint(path)[0]
    assert words in problem.message
    assert (problem.line, problem.file) == (line, path)


def test_missing_columns_say_which_and_what_is_near(file):
    found = complaint(file("arrival_s,input_token,output\n0,1,1\n"), format="csv")
    assert len(found) == 2
    assert found[0].message.startswith("the column input_tokens (also known as num_prefill_tokens")
    assert "found arrival_s, input_token, output; did you mean input_token?" in found[0].message
    assert found[0].line == 1


def test_no_header_is_said(file):
    [problem] = complaint(file("0.0,374,44\n1.0,396,109\n"), format="csv")
    assert "there is no header" in problem.message


def test_another_format_is_suggested(file):
    found = complaint(file(CSV), format="azure")
    assert found[-1].message == "it looks like format csv"
    assert "it looks like format mooncake" in [problem.message for problem in complaint(file(MOONCAKE), format="csv")]


def test_files_that_are_not_there(file, tmp_path):
    path = file(CSV, "azure.csv")
    assert "did you mean azure.csv?" in complaint(path.replace("azure.csv", "azur.csv"))[0].message
    assert "no folder" in complaint(str(tmp_path / "nowhere" / "x.csv"))[0].message
    assert "this is a folder" in complaint(str(tmp_path))[0].message


def test_everything_is_said_at_once_but_not_at_length(file):
    rows = "".join("0,x,1\n" for _ in range(30)) + "0,1,0\n5,1,1\n4,1,1\n"
    found = complaint(file(HEAD + rows))
    assert len(found) == 11
    assert found[-1].message == "32 problems in all; the first 10 are given"
    few = complaint(file(HEAD + "0,x,1\n5,1,0\n4,1,1\n"))
    assert [problem.line for problem in few] == [2, 3, 4]
