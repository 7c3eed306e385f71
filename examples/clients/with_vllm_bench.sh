#!/bin/sh
# vLLM's own load generator: examples/clients/with_vllm_bench.sh http://127.0.0.1:8080 tiny TOKENIZER
# Set VLLM_BENCH to the command if `vllm` is not on the path.
set -eu
${VLLM_BENCH:-vllm bench serve} \
    --backend openai-chat --base-url "$1" --endpoint /v1/chat/completions \
    --model "$2" --tokenizer "$3" \
    --dataset-name random --random-input-len 24 --random-output-len 48 \
    --num-prompts 16 --max-concurrency 4 --percentile-metrics ttft,tpot,e2el
