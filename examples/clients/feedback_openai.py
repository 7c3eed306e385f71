"""openai for Python: python examples/clients/feedback_openai.py http://127.0.0.1:8080/v1 tiny [KEY]."""

import sys

from openai import OpenAI

url, model, *key = sys.argv[1:]
client = OpenAI(base_url=url, api_key=key[0] if key else "none")
question = [{"role": "user", "content": "What is (3+4)*5-9?"}]

completion = client.chat.completions.create(model=model, messages=question)
right = "26" in (completion.choices[0].message.content or "")
request_id = completion._request_id  # noqa: SLF001 - where the client keeps it, documented by OpenAI
feedback = {"request_id": request_id, "correct": right, "source": "script"}
print("whole:", client.post("/feedback", body=feedback, cast_to=object))

stream = client.chat.completions.create(model=model, messages=question, stream=True)
decision_id = stream.response.headers["x-thinkmeter-decision-id"]
answer = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
feedback = {"decision_id": decision_id, "correct": "26" in answer, "source": "script"}
print("streamed:", client.post("/feedback", body=feedback, cast_to=object))
