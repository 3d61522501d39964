"""Small recordings of agents by hand, one of each format."""
from __future__ import annotations

import json

CALLS = """session_id,agent_id,arrival_s,input_tokens,output_tokens,api_time_s,prefix_ref,prefix_tokens,input_types,tools,tool_latency_s
a,main,0,1000,100,2,-1,0,text,Task,8
a,sub,11,400,50,1,-1,0,text,,
a,sub,13,600,60,1,1,400,tool_result,,
a,main,14,1300,100,2,0,1000,tool_result,Bash,3
a,main,20,1500,100,2,3,1300,tool_result,,
a,main,90,1700,100,2,4,1500,text,,
b,main,5,800,10,1,-1,0,text,,
b,main,9,700,10,1,0,500,tool_result,,
"""
MOONCAKE = "\n".join(json.dumps(row) for row in [
    {"timestamp": 1000, "session_id": "s", "input_length": 1000, "output_length": 100, "hash_ids": [1, 2]},
    {"timestamp": 3000, "session_id": "t", "input_length": 1024, "output_length": 10, "hash_ids": [1, 9]},
    {"session_id": "s", "delay": 250, "input_length": 1600, "output_length": 20, "hash_ids": [1, 2, 3, 4]},
]) + "\n"  # fmt: skip
TRACELAB = """session_id,arrival_time,round_idx,prefix_len,input_len,output_len,tool_wait_after_ms
0,117,0,0,2318,200,300
0,117,1,2518,348,131,154
1,120,0,700,20,7,0
"""
DAG = "\n".join(json.dumps(row) for row in [
    {"session_id": "root", "turns": [
        {"input_length": 100, "output_length": 10, "spawns": [{"children": ["x", "y"], "join_at": 2}]},
        {"input_length": 20, "max_tokens": 5, "delay": 500, "forks": ["f"]},
        {"input_length": 30, "output_length": 5},
    ]},
    {"session_id": "x", "turns": [{"input_length": 40, "output_length": 4}]},
    {"session_id": "y", "turns": [{"input_length": 50, "output_length": 5}, {"text": "twelve chars", "output_length": 1, "delay": 250}]},
    {"session_id": "f", "turns": [{"messages": [{"role": "user", "content": "abcdefgh"}], "output_length": 3}]},
]) + "\n"  # fmt: skip
WEKA = json.dumps({
    "id": "trace_1", "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 100, "system_tokens": 28, "requests": [
        {"t": 0.0, "type": "n", "in": 200, "out": 10, "hash_ids": [1, 2, 3], "input_types": ["text"], "api_time": 2.0},
        {"t": 12.0, "type": "subagent", "agent_id": "agent_001", "subagent_type": "Explore", "duration_ms": 10000, "tool_tokens": 64,
         "requests": [{"t": 12.0, "type": "n", "in": 128, "out": 5, "hash_ids": [7, 8], "input_types": ["text"], "api_time": 1.0},
                      {"t": 20.0, "in": 192, "out": 5, "hash_ids": [7, 8, 9], "input_types": ["tool_result"], "api_time": 1.0}]},
        {"t": 13.0, "type": "s", "in": 330, "out": 10, "hash_ids": [1, 2, 3, 4, 5], "input_types": ["tool_result"], "api_time": 2.0},
    ]})  # fmt: skip


def span(id, parent, name, start, end, operation="chat", **attributes):
    """One span, times in seconds after ten o'clock."""
    times = {key: f"2026-02-25T10:00:{value:09.6f}" for key, value in (("start_time", start), ("end_time", end))}
    usage = {f"gen_ai.usage.{key}_tokens": value for key, value in attributes.items()}
    return {"trace_id": "t", "span_id": id, "parent_span_id": parent, "name": name, **times,
            "attributes": {"gen_ai.operation.name": operation, **usage}}  # fmt: skip


SPANS = [
    span("top", None, "invoke_agent lead", 0, 30, "invoke_agent"),
    span("c1", "top", "chat m", 0, 2, input=100, output=10),
    span("u", "top", "execute_tool search", 3, 9, "execute_tool"),
    span("sub", "u", "invoke_agent scout", 3, 9, "invoke_agent"),
    span("c2", "sub", "chat m", 3, 5, input=50, output=5),
    span("c3", "sub", "chat m", 7, 9, input=80, output=5),
    span("c4", "top", "chat m", 10, 12, input=150, output=10),
]
OTEL = json.dumps({"trace_id": "t", "span_count": len(SPANS), "spans": SPANS})
SAMPLES = {"calls": CALLS, "mooncake": MOONCAKE, "tracelab": TRACELAB, "aiperf_dag": DAG, "weka": WEKA, "otel": OTEL}
