"""Other gateways that the bench measures: each one process with one worker thread, at its leanest."""

from __future__ import annotations

from tests.bench.targets import KEY, Target

LITELLM = """\
model_list:
  - model_name: fake
    litellm_params: {{model: hosted_vllm/fake, api_base: "{upstream}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
"""
ONE_THREAD = {"TOKIO_WORKER_THREADS": "1"}
ROUTER = (
    "--worker-urls {upstream} --policy round_robin --host 127.0.0.1 --port {port} --prometheus-port 29017 "
    "--max-concurrent-requests 8192"
)

PEERS = {
    target.name: target
    for target in (
        Target(
            name="vllm-router",
            about="vLLM's router (Rust), one worker thread",
            command="{home}/bin/vllm-router " + ROUTER + " --log-level warning",
            packages=["vllm-router"],
            environment=ONE_THREAD,
        ),
        Target(
            name="sglang-router",
            about="SGLang's router (Rust), one worker thread",
            command="{home}/bin/sglang-router launch " + ROUTER + " --log-level error",
            packages=["sglang-router"],
            environment=ONE_THREAD,
            ready="/readiness",
        ),
        Target(
            name="smg",
            about="Shepherd Model Gateway (Rust), one worker thread",
            command="{home}/bin/smg launch " + ROUTER + " --log-level error",
            packages=["smg"],
            environment=ONE_THREAD,
            ready="/readiness",
        ),
        Target(
            name="mini",
            about="FastAPI + httpx in forty lines, no features",
            command="{home}/bin/python tests/bench/mini.py {port} {upstream}",
            packages=["fastapi", "uvicorn", "httpx", "uvloop", "httptools"],
        ),
        Target(
            name="litellm",
            about="LiteLLM proxy, one worker, no database",
            command="{home}/bin/litellm --config {config} --host 127.0.0.1 --port {port} --num_workers 1",
            packages=["litellm[proxy]"],
            config=LITELLM,
            environment={"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            key=KEY,
            ready="/health/liveliness",
        ),
        Target(
            name="portkey",
            about="Portkey's gateway (Node.js), one process",
            command="node {home}/node_modules/@portkey-ai/gateway/build/start-server.js --headless "
            "--port={port}",
            npm={
                "dependencies": {"@portkey-ai/gateway": "1.15.2"},
                # Streams fail behind newer ones: `TypeError: immutable`.
                "overrides": {"@hono/node-server": "1.3.3"},
            },
            environment={"NODE_ENV": "production"},
            key="none",
            more_headers={"x-portkey-provider": "openai", "x-portkey-custom-host": "{upstream}/v1"},
            ready="/",
        ),
    )
}
