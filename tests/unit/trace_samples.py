"""Small trace files of every format, and how the tests write and reject them."""
from __future__ import annotations

import json

import pytest

from sim.core.errors import BadInput
from workloads.trace import Trace

CSV = "arrival_s,input_tokens,output_tokens\n0.0,374,44\n4.314579,396,109\n4.541877,879,55\n"
AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,374,44
2024-05-10 00:00:01+00:00,396,109
2024-05-10 00:00:01.500000+00:00,879,55
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
"""
BURSTGPT_12 = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5.0,7,1.5,ChatGPT,472,18,490,Conversation log
45.0,9,2.5,ChatGPT,1087,230,1317,Conversation log
50.5,7,2.5,ChatGPT,10,20,30,Conversation log
51.0,,2.5,ChatGPT,10,20,30,API log
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1758, "output_length": 500, "hash_ids": [0, 1, 2, 3]}
{"timestamp": 0, "input_length": 1322, "output_length": 490, "hash_ids": [0, 14, 15]}
{"timestamp": 3000, "input_length": 512, "output_length": 40, "hash_ids": [0]}
"""
GUIDELLM = """{"timestamp": 1234500.0, "input_length": 256, "output_length": 128}
{"timestamp": 1234500.5, "input_length": 512, "output_length": 64}
"""
BAILIAN = """{"chat_id": 159, "timestamp": 61.5, "input_length": 21, "output_length": 132, "turn": 1, "hash_ids": [1, 2]}
{"chat_id": 160, "timestamp": 62.5, "input_length": 40, "output_length": 80, "turn": 2, "hash_ids": [1, 2]}
"""
WEKA = {
    "id": "trace_0012", "block_size": 64, "hash_id_scope": "local", "tool_tokens": 12439, "system_tokens": 2771,
    "requests": [
        {"t": 0.0, "type": "n", "in": 130, "out": 20, "hash_ids": [1, 2], "think_time": 0.0},
        {"t": 9.5, "type": "subagent", "agent_id": "agent_001", "requests": [{"t": 9.5, "in": 64, "out": 7, "hash_ids": [1]}]},
        {"t": 20.0, "type": "subagent", "agent_id": "agent_002", "requests": [{"t": 1.5, "in": 70, "out": 7, "hash_ids": [9]}]},
        {"t": 12.0, "type": "s", "in": 200, "out": 30, "hash_ids": [1, 2, 5], "ttft": 0.4},
    ],
}  # fmt: skip
LLMSERVINGSIM = """{"input_toks": 10, "output_toks": 70, "arrival_time_ns": 500000000}
{"input_toks": 20, "output_toks": 30, "arrival_time_ns": 1500000000}
"""
VLLM = """{"prompt": "What is the capital of India?", "prompt_len": 9, "output_tokens": 10}
{"prompt": "Hi", "prompt_len": 2, "output_tokens": 4}
"""
RESULT = {"date": "x", "completed": 3, "input_lens": [10, 20, 30], "output_lens": [1, 2, 3], "ttfts": [0.1, 0.1, 0.1]}
INFERENCEX = """\
user_id,input_tokens,output_tokens_actual,theoretical_cache_hit_blocks,success,request_start_time,request_complete_time,n_chunks
User-002,5000,100,0,True,0.25,40.25,95
User-001,1190,300,40,True,50.0,60.0,5
User-001,1000,94,0,True,0.0,32.0,90
User-001,1200,102,15,True,37.5,47.5,97
"""
SAMPLES = {
    "plain": (CSV, "csv", [0.0, 4.314579, 4.541877]),
    "vidur": ("arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,1,2\n1.5,3,4\n", "csv", [0.5, 1.5]),
    "splitwise": (
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n0,2,0,0.25,1,9,8\n1,2,0,2.0,1,7,6\n",
        "csv", [0.25, 2.0],
    ),
    "guidellm_csv": ("timestamp,input_length,output_length\n1700000000.5,1,2\n1700000002.5,3,4\n", "csv", [0.0, 2.0]),
    "semicolons": (CSV.replace(",", ";"), "csv", [0.0, 4.314579, 4.541877]),
    "tabs": (CSV.replace(",", "\t"), "csv", [0.0, 4.314579, 4.541877]),
    "crlf": (CSV.replace("\n", "\r\n"), "csv", [0.0, 4.314579, 4.541877]),
    "bom": ("\ufeff" + CSV, "csv", [0.0, 4.314579, 4.541877]),
    "bom_and_crlf": ("\ufeff" + CSV.replace("\n", "\r\n"), "csv", [0.0, 4.314579, 4.541877]),
    "no_newline_at_the_end": (CSV.rstrip(), "csv", [0.0, 4.314579, 4.541877]),
    "empty_lines": (CSV.replace("\n", "\n\n"), "csv", [0.0, 4.314579, 4.541877]),
    "blanks_around_cells": (CSV.replace(",", " , "), "csv", [0.0, 4.314579, 4.541877]),
    "quotes": ('"arrival_s","input_tokens","output_tokens"\n"0.5","1","2"\n', "csv", [0.5]),
    "other_columns_and_case": ("model,Output_Tokens,ARRIVAL_S,input_tokens\nx,1,0.5,2\n\u00e9,3,1.5,4\n", "csv", [0.5, 1.5]),
    "floats_for_tokens": ("arrival_s,input_tokens,output_tokens\n1,10.0,2e1\n", "csv", [1.0]),
    "azure_2023": (AZURE_2023, "azure", [0.0, 4.314579, 4.541877]),
    "azure_2024": (AZURE_2024, "azure", [0.0, 0.99007, 1.49007]),
    "azure_zones_mixed": (AZURE_2024.replace("01+00:00", "01"), "azure", [0.0, 0.99007, 1.49007]),
    "burstgpt": (BURSTGPT, "burstgpt", [5.0, 45.0]),
    "burstgpt_1.2": (BURSTGPT_12, "burstgpt", [5.0, 45.0, 50.5, 51.0]),
    "mooncake": (MOONCAKE, "mooncake", [0.0, 0.0, 3.0]),
    "bailian": (BAILIAN, "jsonl", [0.0, 1.0]),
    "weka": (json.dumps(WEKA, indent=1), "weka", [0.0, 9.5, 12.0, 21.5]),
    "weka_lines": (json.dumps(WEKA) + "\n" + json.dumps(WEKA) + "\n", "weka", [0.0, 0.0, 9.5, 9.5, 12.0, 12.0, 21.5, 21.5]),
    "llmservingsim": (LLMSERVINGSIM, "jsonl", [0.5, 1.5]),
    "inferencex": (INFERENCEX, "inferencex", [0.0, 0.25, 37.5, 50.0]),
    "vllm_bench": (VLLM, "vllm_bench", None),
    "vllm_result": (json.dumps(RESULT), "vllm_bench", None),
    "vllm_result_with_times": (json.dumps({**RESULT, "start_times": [9000.5, 9000.0, 9002.0]}), "vllm_bench", [0.0, 0.5, 2.0]),
}


def complaint(path, **options):
    with pytest.raises(BadInput) as caught:
        Trace(path=path, **options).prepare()
    assert all(problem.file == path or problem.path for problem in caught.value.problems)
    return caught.value.problems
