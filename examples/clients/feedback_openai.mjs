// Feedback with openai for Node: node examples/clients/feedback_openai.mjs http://127.0.0.1:8080/v1 tiny [KEY]
import OpenAI from "openai";

const [baseURL, model, apiKey = "none"] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey });
const messages = [{ role: "user", content: "What is (3+4)*5-9?" }];

const completion = await client.chat.completions.create({ model, messages });
const right = completion.choices[0].message.content.includes("26");
let body = { request_id: completion._request_id, correct: right, source: "script" };
console.log("whole:", await client.post("/feedback", { body }));

const { data: stream, response } = await client.chat.completions.create({ model, messages, stream: true }).withResponse();
let answer = "";
for await (const chunk of stream) answer += chunk.choices[0]?.delta?.content ?? "";
body = { decision_id: response.headers.get("x-thinkmeter-decision-id"), correct: answer.includes("26"), source: "script" };
console.log("streamed:", await client.post("/feedback", { body }));
