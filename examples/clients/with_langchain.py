"""LangChain: python examples/clients/with_langchain.py http://127.0.0.1:8080/v1 tiny [KEY]."""

import sys

from langchain_openai import ChatOpenAI

url, model, *key = sys.argv[1:]
chat = ChatOpenAI(
    base_url=url,
    api_key=key[0] if key else "none",
    model=model,
    include_response_headers=True,  # the tier and the reason are in the headers
)

message = chat.invoke("What is (3+4)*5-9?")
headers = message.response_metadata["headers"]
print("answer:", str(message.content).strip())
print("tier:", headers["x-thinkmeter-tier"], "because:", headers["x-thinkmeter-reason"])
print("tokens:", message.usage_metadata["output_tokens"] if message.usage_metadata else "unknown")

pinned = ChatOpenAI(base_url=url, api_key=key[0] if key else "none", model=f"{model}:direct")
print("streamed:", "".join(str(chunk.content) for chunk in pinned.stream("What is 3+4?")))
