"""openai for Python: python examples/clients/with_openai.py http://127.0.0.1:8080/v1 tiny [KEY]."""

import sys

from openai import OpenAI

url, model, *key = sys.argv[1:]
client = OpenAI(base_url=url, api_key=key[0] if key else "none")

raw = client.chat.completions.with_raw_response.create(
    model=model, messages=[{"role": "user", "content": "What is (3+4)*5-9?"}]
)
completion = raw.parse()
print("answer:", (completion.choices[0].message.content or "").strip())
print("tier:", raw.headers["x-thinkmeter-tier"], "because:", raw.headers["x-thinkmeter-reason"])
print("tokens:", completion.usage.completion_tokens if completion.usage else "unknown")

stream = client.chat.completions.create(
    model=f"{model}:direct",  # a pinned tier
    messages=[{"role": "user", "content": "What is 3+4?"}],
    stream=True,
)
print("streamed:", "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))
