"""LangChain: python examples/clients/feedback_langchain.py http://127.0.0.1:8080/v1 tiny [KEY]."""

import sys
import uuid

from langchain_openai import ChatOpenAI

url, model, *key = sys.argv[1:]
chat = ChatOpenAI(base_url=url, api_key=key[0] if key else "none", model=model, include_response_headers=True)

message = chat.invoke("What is (3+4)*5-9?")
decision_id = message.response_metadata["headers"]["x-thinkmeter-decision-id"]
feedback = {"decision_id": decision_id, "correct": "26" in str(message.content), "source": "script"}
print("whole:", chat.root_client.post("/feedback", body=feedback, cast_to=object))

request_id = uuid.uuid4().hex  # chosen by the client, so that no header need be read
stream = chat.stream("What is (3+4)*5-9?", extra_headers={"X-Request-Id": request_id})
answer = "".join(str(chunk.content) for chunk in stream)
feedback = {"request_id": request_id, "correct": "26" in answer, "source": "script"}
print("streamed:", chat.root_client.post("/feedback", body=feedback, cast_to=object))
