"""LiteLLM as a client: python examples/clients/with_litellm.py http://127.0.0.1:8080/v1 tiny [KEY]."""

import sys

import litellm

url, model, *key = sys.argv[1:]
common = {"api_base": url, "api_key": key[0] if key else "none"}

completion = litellm.completion(
    model=f"openai/{model}",  # `openai/` names the protocol and is not sent
    messages=[{"role": "user", "content": "What is (3+4)*5-9?"}],
    **common,
)
headers = completion._hidden_params["additional_headers"]  # noqa: SLF001 - where LiteLLM keeps them
print("answer:", (completion.choices[0].message.content or "").strip())
print(
    "tier:",
    headers["llm_provider-x-thinkmeter-tier"],
    "because:",
    headers["llm_provider-x-thinkmeter-reason"],
)
print("tokens:", completion.usage.completion_tokens)

stream = litellm.completion(
    model=f"openai/{model}:direct",  # a pinned tier
    messages=[{"role": "user", "content": "What is 3+4?"}],
    stream=True,
    **common,
)
print("streamed:", "".join(chunk.choices[0].delta.content or "" for chunk in stream))
